"""MNIST and its two relatives, from torchvision's file layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from eqprop.data import files, idx
from eqprop.data.base import Dataset
from eqprop.data.identity import NAMES, check_idx
from eqprop.data.raw import Raw


class MNIST(Dataset):
    """Handwritten digits, 60 000 + 10 000 of 28 × 28, from ``<root>/MNIST/raw/``.

    The four IDX files may be gzipped, and are known by their checksums. Where some are missing,
    ``download`` fetches them.
    """

    folder_name: ClassVar[str] = "MNIST"
    n_classes: ClassVar[int] = 10

    def read(self) -> Raw:
        """Read the four files. Raises DataError naming the file that is missing or wrong."""
        download = self._download if self.download else None
        found = files.located(self.root, f"{self.folder_name}/raw", NAMES, download)
        return Raw(*self._part(found[:2], NAMES[:2]), *self._part(found[2:], NAMES[2:]))

    def _download(self, folder: str) -> None:
        files.torchvision(self.folder_name)(root=folder, train=True, download=True)

    def _part(self, paths: Sequence[Path], names: Sequence[str]) -> tuple[idx.Bytes, idx.Bytes]:
        images_path, labels_path = paths
        images = idx.read_images(images_path)
        labels = idx.read_labels(labels_path, self.n_classes)
        for path, content, name in zip(paths, (images, labels), names, strict=True):
            check_idx(path, content, self.folder_name, name)
        if len(images) != len(labels):
            counts = f"{len(images)} images, but {labels_path.name} {len(labels)} labels"
            raise files.fault(images_path, f"holds {counts}")
        return images, labels


class FashionMNIST(MNIST):
    """Pictures of clothes, 60 000 + 10 000 of 28 × 28, from ``<root>/FashionMNIST/raw/``."""

    folder_name = "FashionMNIST"


class KMNIST(MNIST):
    """Handwritten kuzushiji characters, 60 000 + 10 000, from ``<root>/KMNIST/raw/``."""

    folder_name = "KMNIST"
