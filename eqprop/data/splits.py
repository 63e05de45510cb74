"""Samples as tensors, and the batches in which an epoch goes through them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from eqprop.data.draws import Draws, epoch_order
from eqprop.data.transfer import Transfer


@dataclass(frozen=True)
class Split:
    """Prepared samples ``x`` ``(n, *sample)`` and classes ``y`` ``(n,)``, int64.

    ``y`` lies on the device on which batches are wanted, ``x`` too unless there is a ``transfer``.
    """

    x: Tensor
    y: Tensor
    transfer: Transfer | None = None

    def __len__(self) -> int:
        return self.x.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the batches are."""
        return self.y.device

    def batches(
        self, batch_size: int, order: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``(x, y)`` of ``batch_size`` samples each, in ``order`` (indices) or as they lie.

        The last batch holds what is left. Without an order the batches are views, not copies. The
        host only ever sends to the device here, it waits for nothing.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        n = len(self) if order is None else len(order)
        slices = [slice(start, start + batch_size) for start in range(0, n, batch_size)]
        parts: Sequence[Tensor | slice] = slices
        there = parts
        if order is not None:
            sent = self.to_device(order)
            parts, there = [order[part] for part in slices], [sent[part] for part in slices]
        of_x: Iterator[Tensor] = (_taken(self.x, part) for part in there)
        if self.transfer is not None:
            of_x = self.transfer.batches(self.x, parts)
        yield from zip(of_x, (_taken(self.y, part) for part in there), strict=True)

    def to_device(self, order: Tensor) -> Tensor:
        """Indices from the host, sent without waiting."""
        if self.y.is_cuda and not order.is_cuda:
            order = order.pin_memory()
        return order.to(self.device, non_blocking=True)

    def cut(self, n: int) -> Split:
        """The first ``n`` samples."""
        return replace(self, x=self.x[:n], y=self.y[:n])

    def shaped(self, shape: Sequence[int]) -> Split:
        """The same samples as ``(n, *shape)``."""
        return replace(self, x=self.x.view(len(self), *shape))


def _taken(tensor: Tensor, part: Tensor | slice) -> Tensor:
    return tensor[part] if isinstance(part, slice) else tensor.index_select(0, part)


@dataclass(frozen=True)
class Data:
    """A data set that is ready to train on."""

    train: Split
    validation: Split | None
    test: Split
    n_classes: int
    batch_size: int
    sample_shape: tuple[int, ...]
    """Shape of one sample, (1, 28, 28) for MNIST: also where a network takes it flat."""
    augment: Callable[[Tensor, Draws], Tensor] | None = None
    """Makes new pictures of a training batch's; None: they stay as they are."""

    def epoch(
        self, seed: int, epoch: int, done: int = 0
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The training batches ``(x, y, samples)`` of an epoch, but the first ``done`` of them.

        ``samples`` (batch,) are their places in `train`. Order, and what `augment` makes of one,
        are functions of seed, epoch and sample.
        """
        order = epoch_order(len(self.train), seed, epoch)[done * self.batch_size :]
        batches = self.train.batches(self.batch_size, order)
        samples = self.train.to_device(order)
        for x, y in batches:
            chosen, samples = samples[: len(x)], samples[len(x) :]
            if self.augment is not None:
                pictures = x.view(len(x), *self.sample_shape)
                x = self.augment(pictures, Draws(seed, epoch, chosen)).view(x.shape)
            yield x, y, chosen

    def first(self, n: int, eval_batch_size: int) -> Data:
        """The first ``n`` batches of each split, in the order in which the samples lie."""
        return replace(
            self,
            train=self.train.cut(n * self.batch_size),
            validation=self.validation and self.validation.cut(n * eval_batch_size),
            test=self.test.cut(n * eval_batch_size),
        )

    def shaped(self, shape: Sequence[int]) -> Data:
        """The same samples in the shape of a network's input layer."""
        return replace(
            self,
            train=self.train.shaped(shape),
            validation=self.validation and self.validation.shaped(shape),
            test=self.test.shaped(shape),
        )

    @property
    def input_size(self) -> int:
        """Numbers in one sample."""
        return math.prod(self.sample_shape)


def one_hot(y: Tensor, n_classes: int, dtype: torch.dtype) -> Tensor:
    """Targets ``(n, n_classes)``: 1 at each sample's class ``y`` ``(n,)``, 0 elsewhere.

    ``torch.nn.functional.one_hot`` would make the host wait for the device to check its input.
    """
    target = torch.zeros(y.shape[0], n_classes, dtype=dtype, device=y.device)
    return target.scatter_(1, y.unsqueeze(1), 1.0)
