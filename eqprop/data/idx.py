"""A strict reader of IDX files (yann.lecun.com/exdb/mnist), plain or gzipped by their content.

Every fault is one DataError that names the file, its folder and the way out.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eqprop.data.files import fault, unreadable

SIDE = 28  # pixels
IMAGES_MAGIC = 0x803  # unsigned bytes in three dimensions
LABELS_MAGIC = 0x801  # unsigned bytes in one dimension

Bytes = npt.NDArray[np.uint8]

_LARGEST = 1 << 28  # bytes that are unpacked; MNIST has 47 million


def read_images(path: Path) -> Bytes:
    """Images ``(n, 28, 28)``, uint8. Raises DataError."""
    images = _read(path, IMAGES_MAGIC, 3)
    if images.shape[1:] != (SIDE, SIDE):
        rows, columns = images.shape[1:]
        raise fault(path, f"holds images of {rows} × {columns} pixels, not {SIDE} × {SIDE}")
    return images


def read_labels(path: Path, n_classes: int) -> Bytes:
    """Labels ``(n,)``, uint8, each below ``n_classes``. Raises DataError."""
    labels = _read(path, LABELS_MAGIC, 1)
    if labels.max() >= n_classes:
        raise fault(path, f"holds the label {labels.max()}, labels go from 0 to {n_classes - 1}")
    return labels


def _read(path: Path, magic: int, n_dims: int) -> Bytes:
    data = _unpacked(path)
    size = 4 + 4 * n_dims  # of the header
    if len(data) >= 4 and int.from_bytes(data[:4], "big") != magic:
        raise fault(path, f"is not the IDX file expected: it begins with {_excerpt(data)}")
    if len(data) < size:
        raise fault(path, f"is truncated: it ends after {len(data)} of its header's {size} bytes")
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, size, 4))
    claimed, found = math.prod(shape), len(data) - size
    sizes = " × ".join(map(str, shape))
    if claimed == 0:
        raise fault(path, f"is empty: its header claims sizes {sizes}")
    if found < claimed:
        claim = f"{claimed} bytes ({sizes})"
        raise fault(path, f"is truncated: its header claims {claim}, {found} follow")
    if found > claimed:
        raise fault(path, f"is longer than the {claimed} bytes ({sizes}) that it claims")
    return np.frombuffer(data, np.uint8, offset=size).reshape(shape)


def is_packed(data: bytes) -> bool:
    """Whether it begins as gzip's files do."""
    return data[:2] == b"\x1f\x8b"


def _unpacked(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            if not is_packed(file.peek(2)):  # whatever its name says
                return file.read()
            with gzip.GzipFile(fileobj=file) as unpacked:
                return unpacked.read(_LARGEST)
    except EOFError as error:
        raise fault(path, "is a truncated gzip file") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise fault(path, f"is a damaged gzip file ({error})") from error
    except OSError as error:
        raise unreadable(path, error) from error


def _excerpt(start: Any) -> str:
    if start.lstrip()[:1] == b"<":
        return f"{bytes(start[:20])!r}, an error page?"
    return repr(bytes(start[:4]))
