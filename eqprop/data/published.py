"""Colour pictures whose files torchvision fetches, knows by their checksums, and reads."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from eqprop.data import files, identity
from eqprop.data.base import Dataset
from eqprop.data.raw import Array, Raw


class Published(Dataset):
    """A data set of torchvision's, in its layout below ``root``: 3 × 32 × 32, uint8.

    A file is read only if its checksum is the published one, for it may be a pickle.
    """

    source: ClassVar[str]
    """torchvision's name of it."""

    @abstractmethod
    def checksums(self, kind: Any) -> tuple[str, Mapping[str, str]]:
        """The folder inside ``root``, and each file's MD5, as torchvision's class has them."""

    @abstractmethod
    def part(self, kind: Any, root: str, train: bool, download: bool) -> tuple[Array, Array]:
        """Images and labels of the training or the test set, by torchvision's class."""

    def read(self) -> Raw:
        """Read the files. Raises DataError naming the one that is missing or wrong."""
        kind = files.torchvision(self.source)
        inside, checksums = self.checksums(kind)

        def read(root: str, download: bool = True) -> Raw:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # some versions of numpy mind Python 2's pickles
                train, test = (self.part(kind, root, train, download) for train in (True, False))
            return Raw(*train, *test)

        found = files.located(self.root, inside, list(checksums), read if self.download else None)
        for path, checksum in zip(found, checksums.values(), strict=True):
            _verify(path, checksum)
        return read(str(self.root), download=False)


class CIFAR10(Published):
    """50 000 + 10 000 pictures in 10 classes, from ``<root>/cifar-10-batches-py/``."""

    source = "CIFAR10"
    n_classes: ClassVar[int] = 10

    def checksums(self, kind: Any) -> tuple[str, Mapping[str, str]]:
        names = [kind.meta["filename"], kind.meta["md5"]]
        return kind.base_folder, dict([*kind.train_list, *kind.test_list, names])

    def part(self, kind: Any, root: str, train: bool, download: bool) -> tuple[Array, Array]:
        found = kind(root, train=train, download=download)
        return found.data.transpose(0, 3, 1, 2), np.asarray(found.targets)


class CIFAR100(CIFAR10):
    """50 000 + 10 000 pictures in 100 classes, from ``<root>/cifar-100-python/``."""

    source = "CIFAR100"
    n_classes = 100


class SVHN(Published):
    """73 257 + 26 032 house numbers, from ``<root>/train_32x32.mat`` and ``test_32x32.mat``."""

    source = "SVHN"
    n_classes: ClassVar[int] = 10

    def checksums(self, kind: Any) -> tuple[str, Mapping[str, str]]:
        return "", {name: md5 for _, name, md5 in map(kind.split_list.get, ("train", "test"))}

    def part(self, kind: Any, root: str, train: bool, download: bool) -> tuple[Array, Array]:
        found = kind(root, split="train" if train else "test", download=download)
        return found.data, found.labels


def _verify(path: Path, checksum: str) -> None:
    from torchvision.datasets.utils import calculate_md5

    try:
        found = calculate_md5(path)
    except OSError as error:
        raise files.unreadable(path, error) from error
    if found != checksum:
        other = identity.packed().get(found)
        what = f"is truncated or not the published file (MD5 {found}, not {checksum})"
        if other is not None:
            what = f"is {identity.of(other)} by its checksum"
        raise files.fault(path, what)
