"""The seam for data sets: ``read`` gives arrays, ``Dataset`` makes them splits on the device."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Lt
from torch import Tensor
from typing_extensions import Doc

from eqprop.data.augment import Augmentation
from eqprop.data.draws import Draws
from eqprop.data.prepare import Normalize, Preparation, is_normalize, no_pictures
from eqprop.data.raw import Array, Raw, checked
from eqprop.data.splits import Data, Split
from eqprop.data.transfer import transfer_to
from eqprop.run.errors import ConfigError

_ORDER_SEED = 2019  # of the one order in which training samples are kept, for every run
_NORMALIZE = "null or [mean, std], each a number or a list with one a channel, std > 0"
_AUGMENT = "null or a mapping with _target_, a subclass of eqprop.data.Augmentation"


class Dataset(ABC):
    """A named data set. A subclass writes ``read``, and sets ``n_classes`` if it is known.

    ``root``: folder of the data files. ``batch_size``: samples of a training step. ``limit``: how
    many training samples to keep, None for all; the test set stays whole. ``validation``: fraction
    of those that is put aside, in [0, 1). ``pad``: black pixels on each side of a picture.
    ``normalize``: (mean, std) taken off and divided by. ``augment``: what training pictures go
    through. ``download``: whether missing files may be fetched. Raises ConfigError for a value out
    of range.

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
            Normalize | None,
            Doc(
                "mean and std in pixel values of 0 … 1 (one, or one a channel): "
                "x becomes (x - mean) / std"
            ),
        ] = None,
        download: Annotated[
            bool, Doc("fetch missing files into paths.data, where the data set has any")
        ] = False,
        pad: Annotated[
            int, Ge(0), Doc("pixels of 0 on each side of a picture, before normalising")
        ] = 0,
        augment: Annotated[
            Augmentation | None,
            Doc("mapping with _target_, or null: what training pictures go through in each epoch"),
        ] = None,
    ) -> None:
        _require(batch_size >= 1, "batch_size", batch_size, "at least 1")
        _require(0 <= validation < 1, "validation", validation, "at least 0 and less than 1")
        _require(limit is None or limit >= 1, "limit", limit, "null or at least 1")
        _require(pad >= 0, "pad", pad, "at least 0")
        _require(is_normalize(normalize), "normalize", normalize, _NORMALIZE)
        _require(augment is None or isinstance(augment, Augmentation), "augment", augment, _AUGMENT)
        self.root = Path(root)
        self.batch_size = batch_size
        self.validation = validation
        self.limit = limit
        self.pad = pad
        self.normalize = normalize
        self.augment = augment
        self.download = download

    @abstractmethod
    def read(self) -> Raw:
        """Read the whole data set. Raises DataError for a file that is missing or not right."""

    def load(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Data:
        """Read, choose, normalise and place the samples: ``x`` of ``dtype``, on ``device``.

        Raises DataError if ``read`` does, or if what it gives is no data set.
        """
        device = torch.device(device)
        raw, n_classes = checked(self.read(), type(self).__name__, self.n_classes)
        train, validation = self._chosen(len(raw.train_images))
        prepare = Preparation(self.pad, self.normalize, raw.train_images.shape[1:])
        n = len(train) + len(validation) + len(raw.test_images)
        transfer = transfer_to(device, n * math.prod(prepare.shape) * dtype.itemsize)
        home = device if transfer is None else torch.device("cpu")

        def split(images: Array, labels: Array) -> Split:
            x = prepare(images, home, dtype)
            y = torch.tensor(labels.astype(np.int64), device=device)
            return Split(x if transfer is None else transfer.pin(x), y, transfer)

        def part(chosen: Array) -> Split:
            return split(raw.train_images[chosen], raw.train_labels[chosen])

        return Data(
            train=part(train),
            validation=part(validation) if len(validation) else None,
            test=split(raw.test_images, raw.test_labels),
            n_classes=n_classes,
            batch_size=self.batch_size,
            sample_shape=prepare.shape,
            augment=self._augment(prepare, device, dtype),
        )

    def _chosen(self, n: int) -> tuple[Array, Array]:
        """Which of ``n`` training samples are kept for training, and which for validation."""
        kept = mixed_order(n)[: self.limit]
        # the sum is exact but for rounding: 0.29 of 100 is 29
        n_validation = min(math.floor(self.validation * len(kept) + 1e-9), len(kept) - 1)
        return kept[: len(kept) - n_validation], kept[len(kept) - n_validation :]

    def _augment(
        self, prepare: Preparation, device: torch.device, dtype: torch.dtype
    ) -> Callable[[Tensor, Draws], Tensor] | None:
        if self.augment is None or not self.augment.active:
            return None
        if len(prepare.shape) != 3:
            raise ConfigError(f"dataset.augment: {no_pictures(prepare.shape)}; choose null")
        return partial(self.augment, black=prepare.black(device, dtype))


def mixed_order(n: int) -> Array:
    """The fixed order in which ``n`` training samples are kept, the same on every machine."""
    # the stream of RandomState is frozen for good, that of numpy's Generator is not
    order: Array = np.random.RandomState(_ORDER_SEED).permutation(n)
    return order


def _require(holds: bool, key: str, value: object, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"dataset.{key}={value}: must be {allowed}")
