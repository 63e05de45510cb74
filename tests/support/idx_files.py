"""A small MNIST in IDX files, written by the format's definition."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
IMAGES, LABELS = NAMES[:2]


def idx_bytes(array: np.ndarray) -> bytes:
    """The format's definition: 0, 0, type (8: unsigned byte), dimensions, sizes, values."""
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def samples(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), np.arange(n, dtype=np.uint8) % 10


TRAIN, TEST = samples(30, 0), samples(10, 1)


def make_mnist(root: Path, name: str = "MNIST") -> Path:
    """A data folder with a small, right MNIST, or FashionMNIST."""
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    for name, array in zip(NAMES, (*TRAIN, *TEST), strict=True):
        (folder / name).write_bytes(idx_bytes(array))
    return root
