"""Samples as tensors on a device, and the order in which an epoch goes through them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Normalised samples ``x`` ``(n, d)`` and classes ``y`` ``(n,)``, int64, on one device."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return self.x.shape[0]

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
        parts = [slice(start, start + batch_size) for start in range(0, n, batch_size)]
        if order is None:
            yield from ((self.x[part], self.y[part]) for part in parts)
            return
        order = self._to_device(order)
        for part in parts:
            yield self.x.index_select(0, order[part]), self.y.index_select(0, order[part])

    def _to_device(self, order: Tensor) -> Tensor:
        if self.x.is_cuda and not order.is_cuda:
            order = order.pin_memory()
        return order.to(self.x.device, non_blocking=True)


@dataclass(frozen=True)
class Data:
    """A data set that is ready to train on."""

    train: Split
    validation: Split | None
    test: Split
    n_classes: int
    batch_size: int
    sample_shape: tuple[int, ...]
    """Shape of one sample before it was flattened, (28, 28) for MNIST."""

    def first(self, n: int, eval_batch_size: int) -> Data:
        """The first ``n`` batches of each split, in the order in which the samples lie."""

        def cut(split: Split, size: int) -> Split:
            return Split(split.x[: n * size], split.y[: n * size])

        return replace(
            self,
            train=cut(self.train, self.batch_size),
            validation=self.validation and cut(self.validation, eval_batch_size),
            test=cut(self.test, eval_batch_size),
        )

    @property
    def input_size(self) -> int:
        """Numbers in one sample: the size of the input layer."""
        return self.train.x.shape[1]


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """A permutation ``(n,)`` of 0 … n-1, int64 on the CPU, that depends on seed and epoch only.

    ``seed`` and ``epoch`` are from 0 to 2⁶³ - 1. They are mixed by a hash, so that neighbouring
    seeds and epochs have nothing in common.
    """
    # words of a fixed number: (seed 5 + 3·2³², epoch 0) must differ from (seed 5, epoch 3)
    words = [part for number in (seed, epoch) for part in divmod(number, 2**32)]
    mixed = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]) >> 1
    return torch.randperm(n, generator=torch.Generator().manual_seed(mixed))


def one_hot(y: Tensor, n_classes: int, dtype: torch.dtype) -> Tensor:
    """Targets ``(n, n_classes)``: 1 at each sample's class ``y`` ``(n,)``, 0 elsewhere.

    ``torch.nn.functional.one_hot`` would make the host wait for the device to check its input.
    """
    target = torch.zeros(y.shape[0], n_classes, dtype=dtype, device=y.device)
    return target.scatter_(1, y.unsqueeze(1), 1.0)
