"""Which published file one is, by its checksum, whatever it is called and wherever it lies."""

from __future__ import annotations

import hashlib
import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eqprop.data import files, idx

log = logging.getLogger(__name__)

# MD5 of the unpacked files, in the order of ``NAMES``; torchvision has those of the packed ones
UNPACKED = {
    "MNIST": (
        *("6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624"),
        *("2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637"),
    ),
    "FashionMNIST": (
        *("f4a8712d7a061bf5bd6d2ca38dc4d50a", "9018921c3c673c538a1fc5bad174d6f9"),
        *("8181f5470baa50b63fa0f6fddb340f0a", "15d484375f8d13e6eb1aabb0c3f46965"),
    ),
}
NAMES = (
    *("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    *("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)
_SIZES = (60_000, 10_000)  # of the published sets: what has another size is somebody's own


def check_idx(path: Path, content: idx.Bytes, dataset: str, name: str) -> None:
    """Refuse an IDX file that is another published one than ``name`` of ``dataset``.

    Raises:
        DataError: says which one it is.
    """
    if len(content) not in _SIZES:
        return
    sums = {md5: (kind, n) for kind in UNPACKED for md5, n in _named(UNPACKED[kind])}
    found = sums.get(_md5_of_idx(content)) or _of_packed(path)
    if found is not None and found != (dataset, name):
        raise files.fault(path, f"is {of(found)} by its checksum, not {of((dataset, name))}")
    if found is None and dataset in UNPACKED:
        log.warning("%s has the size but not the checksum of %s", path, of((dataset, name)))


def of(file: tuple[str, str]) -> str:
    """Name a published file and its data set."""
    return f"{file[0]}'s {file[1]}"


def packed() -> dict[str, tuple[str, str]]:
    """MD5 of each file that torchvision knows, as it is fetched → its data set and its name."""
    found: dict[str, tuple[str, str]] = {}
    for kind in ("MNIST", "FashionMNIST", "KMNIST"):
        for name, md5 in files.torchvision(kind).resources:
            found[md5] = kind, name.removesuffix(".gz")
    for kind in ("CIFAR10", "CIFAR100"):
        source: Any = files.torchvision(kind)
        for name, md5 in [*source.train_list, *source.test_list]:
            found[md5] = kind, name
    for _, name, md5 in files.torchvision("SVHN").split_list.values():
        found[md5] = "SVHN", name
    return found


def _named(sums: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    return zip(sums, NAMES, strict=True)


def _md5_of_idx(content: idx.Bytes) -> str:
    header = bytes([0, 0, 8, content.ndim]) + struct.pack(f">{content.ndim}I", *content.shape)
    digest = hashlib.md5(header, usedforsecurity=False)
    digest.update(content.data)
    return digest.hexdigest()


def _of_packed(path: Path) -> tuple[str, str] | None:
    """What the file is as it lies there, if it is packed."""
    data = path.read_bytes()
    if not idx.is_packed(data):
        return None
    return packed().get(hashlib.md5(data, usedforsecurity=False).hexdigest())
