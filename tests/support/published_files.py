"""Small SVHN and CIFAR files in the published formats, in the place of the published ones."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from eqprop.data import CIFAR10, CIFAR100, SVHN

datasets = pytest.importorskip("torchvision.datasets")
KINDS = {"CIFAR10": CIFAR10, "CIFAR100": CIFAR100, "SVHN": SVHN}
SIZES = {"CIFAR10": (4, 4, 4, 4, 4, 6), "CIFAR100": (20, 6), "SVHN": (20, 6)}
"""Samples of each file, the test set's the last."""

Samples = tuple[np.ndarray, np.ndarray]


def samples(kind: str) -> list[Samples]:
    """Pictures (n, 3, 32, 32) and labels for each file."""
    noise = np.random.default_rng(7)
    classes = KINDS[kind].n_classes
    return [
        (noise.integers(0, 256, (n, 3, 32, 32), np.uint8), noise.integers(0, classes, n))
        for n in SIZES[kind]
    ]


def cifar_bytes(part: Samples, label: bytes) -> bytes:
    """cs.toronto.edu/~kriz/cifar.html: rows of 3072, the reds row by row, the greens, the blues."""
    images, labels = part
    rows = np.array([[*red.flat, *green.flat, *blue.flat] for red, green, blue in images], np.uint8)
    content = {"data": rows, label.decode(): labels.tolist(), "batch_label": "a batch"}
    return as_python_2(pickle.dumps(content, protocol=2))


def as_python_2(pickled: bytes) -> bytes:
    """The published files name numpy's modules as they were, and say 0 and 1 for false and true."""
    named = pickled.replace(b"numpy._core.", b"numpy.core.")
    assert b"\x89\x88\x87" in named
    return named.replace(b"\x89\x88\x87", b"K\x00K\x01\x87", 1)


def write_cifar(root: Path, kind: str) -> dict[str, str]:
    published = getattr(datasets, kind)
    folder = root / published.base_folder
    folder.mkdir(parents=True)
    label = b"labels" if kind == "CIFAR10" else b"fine_labels"
    names = [name for name, _ in [*published.train_list, *published.test_list]]
    for name, part in zip(names, samples(kind), strict=True):
        (folder / name).write_bytes(cifar_bytes(part, label))
    meta = {published.meta["key"]: [f"class {i}" for i in range(KINDS[kind].n_classes)]}
    (folder / published.meta["filename"]).write_bytes(pickle.dumps(meta, protocol=2))
    return {path.name: md5(path) for path in folder.iterdir()}


def write_svhn(root: Path) -> dict[str, str]:
    """ufldl.stanford.edu/housenumbers: X (32, 32, 3, n), y (n, 1) in which 10 stands for 0."""
    root.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in zip(("train", "test"), samples("SVHN"), strict=True):
        y = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(root / f"{name}_32x32.mat", {"X": images.transpose(2, 3, 1, 0), "y": y})
    return {path.name: md5(path) for path in root.glob("*.mat")}


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def stand_in(kind: str, root: Path, patch: pytest.MonkeyPatch) -> None:
    """Write the small files below ``root``; their checksums then stand for the published ones."""
    published = getattr(datasets, kind)
    if kind == "SVHN":
        sums = write_svhn(root)
        changed = {
            split: [url, name, sums.get(name, checksum)]
            for split, (url, name, checksum) in published.split_list.items()
        }
        patch.setattr(published, "split_list", changed)
        return
    sums = write_cifar(root, kind)
    for names in ("train_list", "test_list"):
        listed = [[name, sums[name]] for name, _ in getattr(published, names)]
        patch.setattr(published, names, listed)
    patch.setattr(published, "meta", published.meta | {"md5": sums[published.meta["filename"]]})
