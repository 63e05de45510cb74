"""MNIST and its two relatives, from torchvision's file layout."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from eqprop.data import idx
from eqprop.data.base import Dataset, Raw
from eqprop.run.errors import DataError
from eqprop.run.text import one_line

DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer
NAMES = (
    *("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    *("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)


class MNIST(Dataset):
    """Handwritten digits, 60 000 + 10 000 of 28 × 28, from ``<root>/MNIST/raw/``.

    The four IDX files may be gzipped. Where some are missing, ``download`` fetches them.
    """

    folder_name: ClassVar[str] = "MNIST"
    n_classes: ClassVar[int] = 10

    @property
    def folder(self) -> Path:
        """The folder of the files."""
        return self.root / self.folder_name / "raw"

    def read(self) -> Raw:
        """Read the four files. Raises DataError naming the file that is missing or wrong."""
        found, missing = self._find()
        if missing and self.download:
            fetch(self.folder_name, self.root, missing)
            found, missing = self._find()
        if missing:
            raise DataError(
                f"missing in {self.folder}: {', '.join(missing)}; fetch with "
                "dataset.download=true, or set paths.data=DIR to the folder that holds "
                f"{self.folder_name}/raw"
            )
        return Raw(*self._part(*found[:2]), *self._part(*found[2:]))

    def _find(self) -> tuple[list[Path], list[str]]:
        """The files that are there, and the names of the others."""
        found = {name: idx.find(self.folder, name) for name in NAMES}
        paths = [path for path in found.values() if path is not None]
        return paths, [name for name, path in found.items() if path is None]

    def _part(self, images_path: Path, labels_path: Path) -> tuple[idx.Bytes, idx.Bytes]:
        images = idx.read_images(images_path)
        labels = idx.read_labels(labels_path, self.n_classes)
        if len(images) != len(labels):
            counts = f"{len(images)} images, but {labels_path.name} {len(labels)} labels"
            raise idx.fault(images_path, f"holds {counts}")
        return images, labels


class FashionMNIST(MNIST):
    """Pictures of clothes, 60 000 + 10 000 of 28 × 28, from ``<root>/FashionMNIST/raw/``."""

    folder_name = "FashionMNIST"


class KMNIST(MNIST):
    """Handwritten kuzushiji characters, 60 000 + 10 000, from ``<root>/KMNIST/raw/``."""

    folder_name = "KMNIST"


def fetch(name: str, root: Path, missing: list[str]) -> None:
    """Download torchvision's data set ``name`` and put the ``missing`` files into place.

    It arrives in a temporary folder in ``root``, so that a file has its name only when it is whole.
    Raises DataError.
    """
    target = root / name / "raw"
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
            _torchvision(name)(root=folder, train=True, download=True)
            for file in missing:
                os.replace(Path(folder) / name / "raw" / file, target / file)
    except Exception as error:
        raise DataError(
            f"cannot download {', '.join(missing)} to {target} ({one_line(error, 300)}); check "
            f"the connection and the folder, or set paths.data=DIR to one that holds {name}/raw"
        ) from error
    finally:
        socket.setdefaulttimeout(patience)


def _torchvision(name: str) -> Any:
    from torchvision import datasets

    return getattr(datasets, name)
