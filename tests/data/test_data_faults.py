"""Every fault of a data file, or of what a ``read`` returns, is one DataError that names it."""

from __future__ import annotations

import builtins
import errno
import gzip
import os
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from idx_files import IMAGES, LABELS, TRAIN, idx_bytes, make_mnist

from eqprop.data import (
    MNIST,
    Dataset,
    Raw,
)
from eqprop.run.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_mnist(tmp_path / "data")


def header(magic: int, *sizes: int) -> bytes:
    return struct.pack(f">{1 + len(sizes)}I", magic, *sizes)


RIGHT = idx_bytes(TRAIN[0])

PACKED = gzip.compress(RIGHT)

PAGE = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"

FAULTS = {
    "empty file": (IMAGES, b"", "truncated"),
    "truncated header": (IMAGES, RIGHT[:9], "truncated"),
    "truncated body": (IMAGES, RIGHT[:-1], "truncated"),
    "too long": (IMAGES, RIGHT + b"\0", "longer than"),
    "wrong magic": (IMAGES, header(0x801, 30, 28, 28) + RIGHT[16:], "not the IDX file"),
    "sizes overflow": (IMAGES, header(0x803, *[2**32 - 1] * 3) + RIGHT[16:], "truncated"),
    # 2^22 x 2^21 x 2^21 is 2^64, which 64 bits hold as 0
    "sizes wrap to nothing": (IMAGES, header(0x803, 2**22, 2**21, 2**21), str(2**64)),
    "no images": (IMAGES, header(0x803, 0, 28, 28), "is empty"),
    "not 28 x 28": (IMAGES, header(0x803, 30, 14, 56) + RIGHT[16:], "14 × 56"),
    "an error page": (IMAGES, PAGE, "error page"),
    "label out of range": (LABELS, header(0x801, 30) + bytes([10] * 30), "label 10"),
    "counts differ": (LABELS, header(0x801, 29) + bytes(29), "30 images"),
    "labels truncated": (LABELS, header(0x801, 30) + bytes(29), "truncated"),
    "gzip: an error page": (f"{IMAGES}.gz", PAGE, "error page"),
    "gzip: truncated": (f"{IMAGES}.gz", PACKED[:-20], "truncated gzip"),
    "gzip: damaged": (f"{IMAGES}.gz", PACKED[:-8] + bytes(8), "damaged gzip"),
    "gzip: damaged stream": (
        f"{IMAGES}.gz",
        PACKED[:10] + bytes(b ^ 0xFF for b in PACKED[10:20]) + PACKED[20:],
        "damaged gzip",
    ),
    "gzip: contents too long": (f"{IMAGES}.gz", gzip.compress(RIGHT + b"\0"), "longer than"),
    "gzip: sizes overflow": (
        f"{IMAGES}.gz",
        gzip.compress(header(0x803, *[2**32 - 1] * 3) + RIGHT[16:]),
        "truncated",
    ),
}


def error_of(dataset: Dataset) -> str:
    with pytest.raises(DataError) as caught:
        dataset.load("cpu")
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(("name", "content", "told"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_file_is_one_line_that_names_it(
    root: Path, name: str, content: bytes, told: str
) -> None:
    folder = root / "MNIST" / "raw"
    (folder / name.removesuffix(".gz")).unlink()
    (folder / name).write_bytes(content)
    text = error_of(MNIST(root, 10))
    assert told in text
    assert name.removesuffix(".gz").split("-")[1] in text
    assert str(folder) in text
    assert "paths.data=DIR" in text


def test_a_folder_in_the_place_of_a_file(root: Path) -> None:
    path = root / "MNIST" / "raw" / IMAGES
    path.unlink()
    path.mkdir()
    assert "cannot be read" in error_of(MNIST(root, 10))


@pytest.mark.parametrize("call", ["stat", "open"])
def test_what_may_not_be_read(root: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that may not be searched, a file that may not be opened: even root is told so."""
    owner = os if call == "stat" else builtins
    original = getattr(owner, call)

    def refusing(path: Any, *args: Any, **options: Any) -> Any:
        if str(path).endswith(IMAGES):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path, *args, **options)

    monkeypatch.setattr(owner, call, refusing)
    text = error_of(MNIST(root, 10))
    assert "cannot be read (Permission denied)" in text
    assert IMAGES in text


class Own(Dataset):
    """A user's data set: ``read`` only."""

    raw: ClassVar[tuple]

    def read(self) -> Raw:
        return Raw(*self.raw)


X, Y = np.zeros((6, 2, 2), np.float32), np.array([0, 1, 2, 0, 1, 2])

NAN = np.where(np.arange(6)[:, None] == 3, np.nan, 1.0)

BAD = {
    "counts": ((X, Y[:5], X, Y), "6 training images, but 5 labels"),
    "empty": ((X, Y, X[:0], Y[:0]), "no test samples"),
    "no pixels": ((X[:, :0], Y, X[:, :0], Y), "no training samples"),
    "shapes": ((X, Y, X[:, :1], Y), "test samples (1, 2)"),
    "float labels": ((X, Y / 1, X, Y), "float64, not integers"),
    "negative label": ((X, Y - 1, X, Y), "from -1 to 2"),
    "not finite": ((NAN, Y, NAN, Y), "not finite"),
    "flat": ((Y / 1, Y, X, Y), "not (n, …)"),
    "text": ((X.astype("U5"), Y, X, Y), "neither uint8"),
}


@pytest.mark.parametrize(("raw", "told"), BAD.values(), ids=BAD)
def test_what_read_returns_is_checked(
    raw: tuple, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Own, "raw", raw, raising=False)
    text = error_of(Own("", 2))
    assert told in text
    assert "Own" in text


def test_labels_above_the_declared_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Own, "raw", (X, Y, X, Y), raising=False)
    monkeypatch.setattr(Own, "n_classes", 2)
    assert "not from 0 to 1" in error_of(Own("", 2))
