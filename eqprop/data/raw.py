"""A data set as arrays, and whether they are one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from eqprop.run.errors import DataError

Array = npt.NDArray[Any]


class Raw(NamedTuple):
    """A data set as it was read, before any choice of samples.

    Images are ``(n, channels, height, width)``, or ``(n, height, width)`` with one channel, or
    ``(n, numbers)`` if they are no pictures; uint8 (0 … 255 becomes 0 … 1) or floating point (taken
    as they are). Labels are ``(n,)``, integers from 0.
    """

    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array


def checked(raw: Raw, name: str, n_classes: int | None) -> tuple[Raw, int]:
    """``raw`` as arrays, pictures with their channels, and the number of classes.

    ``n_classes`` is what the data set ``name`` says of itself; None: the largest label + 1. Raises
    DataError for what is no data set.
    """
    raw = Raw(*map(np.asarray, raw))
    try:
        _check_part("training", raw.train_images, raw.train_labels)
        _check_part("test", raw.test_images, raw.test_labels)
        n_classes = _count_classes(raw, n_classes)
    except ValueError as error:
        raise DataError(f"data set {name}: {error}; mend its read()") from error
    train, test = (
        images[:, None] if images.ndim == 3 else images
        for images in (raw.train_images, raw.test_images)
    )
    return raw._replace(train_images=train, test_images=test), n_classes


def _count_classes(raw: Raw, n_classes: int | None) -> int:
    train, test = raw.train_images.shape[1:], raw.test_images.shape[1:]
    if train != test:
        raise ValueError(f"training samples have shape {train}, test samples {test}")
    labels = np.concatenate([raw.train_labels, raw.test_labels])
    lowest, highest = int(labels.min()), int(labels.max())
    n_classes = n_classes or highest + 1
    if lowest < 0 or highest >= n_classes:
        raise ValueError(f"labels go from {lowest} to {highest}, not from 0 to {n_classes - 1}")
    return n_classes


def _check_part(part: str, images: Array, labels: Array) -> None:
    if images.ndim < 2 or labels.ndim != 1:
        shapes = f"{images.shape} and {labels.shape}"
        raise ValueError(f"{part} images and labels have shapes {shapes}, not (n, …) and (n,)")
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} {part} images, but {len(labels)} labels")
    if images.size == 0:
        raise ValueError(f"there are no {part} samples")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{part} labels are {labels.dtype}, not integers")
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise ValueError(f"{part} images are {images.dtype}, neither uint8 nor floating point")
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise ValueError(f"{part} images hold numbers that are not finite")
