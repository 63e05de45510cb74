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
from eqprop.run.files import one_line

DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer


class MNIST(Dataset):
    """Handwritten digits, 60 000 + 10 000 of 28 × 28, from ``<root>/MNIST/raw/``.

    The four IDX files may be gzipped. Where some are missing, ``download`` fetches them.
    """

    folder_name: ClassVar[str] = "MNIST"
    n_classes: ClassVar[int] = 10

    parts: ClassVar[tuple[str, str]] = ("train", "t10k")

    @property
    def folder(self) -> Path:
        """The folder of the files."""
        return self.root / self.folder_name / "raw"

    def read(self) -> Raw:
        """Read the four files. Raises DataError naming the file that is missing or wrong."""
        missing = self._missing()
        if missing and self.download:
            fetch(self.folder_name, self.root, missing)
            missing = self._missing()
        if missing:
            raise DataError(
                f"missing in {self.folder}: {', '.join(missing)}; fetch with "
                "dataset.download=true, or set paths.data=DIR to the folder that holds "
                f"{self.folder_name}/raw"
            )
        train, test = map(self._part, self.parts)
        return Raw(*train, *test)

    def _names(self, part: str) -> tuple[str, str]:
        return f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"

    def _missing(self) -> list[str]:
        names = [name for part in self.parts for name in self._names(part)]
        return [name for name in names if idx.find(self.folder, name) is None]

    def _part(self, part: str) -> tuple[idx.Bytes, idx.Bytes]:
        images_path, labels_path = (idx.find(self.folder, name) for name in self._names(part))
        assert images_path is not None
        assert labels_path is not None
        images = idx.read_images(images_path)
        labels = idx.read_labels(labels_path, self.n_classes)
        if len(images) != len(labels):
            raise idx.fault(
                images_path,
                f"holds {len(images)} images, but {labels_path.name} {len(labels)} labels",
            )
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
            f"cannot download {', '.join(missing)} to {target} ({one_line(error)}); check "
            f"the connection and the folder, or set paths.data=DIR to one that holds {name}/raw"
        ) from error
    finally:
        socket.setdefaulttimeout(patience)


def _torchvision(name: str) -> Any:
    from torchvision import datasets

    return getattr(datasets, name)
