"""The seam for data sets: ``read`` gives arrays, ``Dataset`` makes them splits on the device."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge, Gt, Lt
from typing_extensions import Doc

from eqprop.data.splits import Data, Split
from eqprop.run.errors import ConfigError, DataError

Array = npt.NDArray[Any]

_ORDER_SEED = 2019  # of the one order in which training samples are kept, for every run


class Raw(NamedTuple):
    """A data set as it was read, before any choice of samples.

    Images are ``(n, *sample)``, uint8 (0 … 255 becomes 0 … 1) or floating point (taken as they
    are); labels ``(n,)``, integers from 0.
    """

    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array


class Dataset(ABC):
    """A named data set. A subclass writes ``read``, and sets ``n_classes`` if it is known.

    ``root``: folder of the data files. ``batch_size``: samples of a training step. ``limit``: how
    many training samples to keep, None for all; the test set stays whole. ``validation``: fraction
    of those that is put aside, in [0, 1). ``normalize``: (mean, std) taken off and divided by.
    ``download``: whether missing files may be fetched. Raises ConfigError for a value out of range.

    Training samples are mixed once in a fixed order before ``limit`` and ``validation`` take their
    parts, so that each part holds all classes and is the same whatever a run's seed.
    """

    n_classes: ClassVar[int | None] = None
    """Number of classes; None: the largest label + 1."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        batch_size: Annotated[
            int, Ge(1), Doc("samples of a training step (more than there are: all of them)")
        ],
        validation: Annotated[
            float,
            Ge(0),
            Lt(1),
            Doc("share of the training data kept for choosing (0: none; the test set is used)"),
        ] = 0.0,
        limit: Annotated[
            Annotated[int, Ge(1)] | None,
            Doc("training samples to keep before the split; the test set stays whole"),
        ] = None,
        normalize: Annotated[
            tuple[float, Annotated[float, Gt(0)]] | None,
            Doc("mean and std in pixel values of 0 … 1: x becomes (x - mean) / std"),
        ] = None,
        download: Annotated[
            bool, Doc("fetch missing files into paths.data, where the data set has any")
        ] = False,
    ) -> None:
        _require(batch_size >= 1, "batch_size", batch_size, "at least 1")
        _require(0 <= validation < 1, "validation", validation, "at least 0 and less than 1")
        _require(limit is None or limit >= 1, "limit", limit, "null or at least 1")
        _require(_is_normalize(normalize), "normalize", normalize, "null or [mean, std], std > 0")
        self.root = Path(root)
        self.batch_size = batch_size
        self.validation = validation
        self.limit = limit
        self.normalize = normalize
        self.download = download

    @abstractmethod
    def read(self) -> Raw:
        """Read the whole data set. Raises DataError for a file that is missing or not right."""

    def load(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Data:
        """Read, choose, normalise and place the samples: ``x`` of ``dtype``, on ``device``.

        Raises DataError if ``read`` does, or if what it gives is no data set.
        """
        raw = Raw(*map(np.asarray, self.read()))
        n_classes = self._check(raw)
        kept = mixed_order(len(raw.train_images))[: self.limit]
        # the sum is exact but for rounding: 0.29 of 100 is 29
        n_validation = min(math.floor(self.validation * len(kept) + 1e-9), len(kept) - 1)
        n_train = len(kept) - n_validation

        def split(images: Array, labels: Array) -> Split:
            return self._split(images, labels, torch.device(device), dtype)

        def part(chosen: Array) -> Split:
            return split(raw.train_images[chosen], raw.train_labels[chosen])

        return Data(
            train=part(kept[:n_train]),
            validation=part(kept[n_train:]) if n_validation else None,
            test=split(raw.test_images, raw.test_labels),
            n_classes=n_classes,
            batch_size=self.batch_size,
            sample_shape=raw.train_images.shape[1:],
        )

    def _split(
        self, images: Array, labels: Array, device: torch.device, dtype: torch.dtype
    ) -> Split:
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        native = images.astype(images.dtype.newbyteorder("="), copy=False)
        x = torch.tensor(native.reshape(len(images), -1), device=device).to(exact)
        if native.dtype == np.uint8:
            x.div_(255)
        if self.normalize is not None:
            mean, std = self.normalize
            x.sub_(mean).div_(std)
        y = torch.tensor(labels.astype(np.int64), device=device)
        return Split(x.to(dtype), y)

    def _check(self, raw: Raw) -> int:
        """The number of classes, after making sure that ``raw`` is a data set."""
        self._check_part("training", raw.train_images, raw.train_labels)
        self._check_part("test", raw.test_images, raw.test_labels)
        shapes = raw.train_images.shape[1:], raw.test_images.shape[1:]
        if shapes[0] != shapes[1]:
            self._refuse(f"training samples have shape {shapes[0]}, test samples {shapes[1]}")
        highest = int(max(raw.train_labels.max(), raw.test_labels.max()))
        n_classes = self.n_classes or highest + 1
        lowest = int(min(raw.train_labels.min(), raw.test_labels.min()))
        if lowest < 0 or highest >= n_classes:
            self._refuse(f"labels go from {lowest} to {highest}, not from 0 to {n_classes - 1}")
        return n_classes

    def _check_part(self, part: str, images: Array, labels: Array) -> None:
        if images.ndim < 2 or labels.ndim != 1:
            shapes = f"{images.shape} and {labels.shape}"
            self._refuse(f"{part} images and labels have shapes {shapes}, not (n, …) and (n,)")
        if len(images) != len(labels):
            self._refuse(f"{len(images)} {part} images, but {len(labels)} labels")
        if images.size == 0:
            self._refuse(f"there are no {part} samples")
        if labels.dtype.kind not in "iu":
            self._refuse(f"{part} labels are {labels.dtype}, not integers")
        if images.dtype != np.uint8 and images.dtype.kind != "f":
            self._refuse(f"{part} images are {images.dtype}, neither uint8 nor floating point")
        if images.dtype.kind == "f" and not np.isfinite(images).all():
            self._refuse(f"{part} images hold numbers that are not finite")

    def _refuse(self, fault: str) -> None:
        raise DataError(f"data set {type(self).__name__}: {fault}; mend its read()")


def mixed_order(n: int) -> Array:
    """The fixed order in which ``n`` training samples are kept, the same on every machine."""
    # the stream of RandomState is frozen for good, that of numpy's Generator is not
    order: Array = np.random.RandomState(_ORDER_SEED).permutation(n)
    return order


def _is_normalize(normalize: Sequence[float] | None) -> bool:
    if normalize is None:
        return True
    return len(normalize) == 2 and all(map(math.isfinite, normalize)) and normalize[1] > 0


def _require(holds: bool, key: str, value: object, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"dataset.{key}={value}: must be {allowed}")
