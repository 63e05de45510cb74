"""The state of a network and the buffers beside it, allocated once and never moved.

Buffers that live as long as the batch shape does are what makes a relaxation cheap (allocation
and passes over memory cost more than its arithmetic) and what a CUDA graph needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

import torch
from torch import Tensor

# A product that ends in a layer this narrow (the classes) goes into a buffer stored column by
# column: BLAS computes it about twice as fast.
NARROW = 32


class State(list[Tensor]):
    """The layers ``u[0] … u[L]``; assigning to one copies into it, so no caller's tensor is kept.

    Raises:
        ValueError: when a layer is given a tensor of another shape.
    """

    def __setitem__(self, index: SupportsIndex | slice, value: Any) -> None:
        if isinstance(index, slice):
            for i, tensor in zip(range(*index.indices(len(self))), value, strict=True):
                self[i] = tensor
            return
        layer = self[index]
        if value is layer:
            return
        if tuple(value.shape) != tuple(layer.shape):
            raise ValueError(
                f"layer {int(index)} has shape {tuple(layer.shape)}, "
                f"but was given {tuple(value.shape)}; resize() changes the batch size"
            )
        with torch.no_grad():
            layer.copy_(value)


class Buffers:
    """Named lists of work tensors shaped like the layers, cut to the batch size in use.

    Args:
        shapes: one sample's shape of each layer.
        capacity: samples that fit without allocating again.
        like: a tensor of the dtype and device wanted.

    Attributes:
        bound: what somebody has made of these tensors, kept until they are cut anew.
    """

    def __init__(self, shapes: Sequence[Iterable[int]], capacity: int, like: Tensor) -> None:
        self.shapes = [tuple(shape) for shape in shapes]
        self.capacity = capacity
        self._like = like
        self._full: dict[str, list[Tensor]] = {}
        self._cut: dict[str, list[Tensor]] = {}
        self.bound: dict[Any, Any] = {}
        self._batch = capacity

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "bound": {}}  # a copy's tensors are others

    def resize(self, batch_size: int) -> None:
        """Cut every list to ``batch_size`` samples; beyond the capacity, allocate afresh."""
        if batch_size > self.capacity:
            self.capacity = batch_size
            self._full.clear()
        self._batch = batch_size
        self._cut.clear()
        self.bound.clear()

    def __call__(self, name: str) -> list[Tensor]:
        """The list called ``name``, one tensor (batch, *shape) a layer."""
        found = self._cut.get(name)
        if found is None:
            found = self._cut[name] = [tensor[: self._batch] for tensor in self._all(name)]
        return found

    def _all(self, name: str) -> list[Tensor]:
        if name not in self._full:
            like, n = self._like, self.capacity
            self._full[name] = [_zeros(n, shape, like, name == "drive") for shape in self.shapes]
        return self._full[name]


def _zeros(n: int, shape: tuple[int, ...], like: Tensor, product: bool) -> Tensor:
    if product and len(shape) == 1 and shape[0] <= NARROW:
        return torch.zeros((*shape, n), dtype=like.dtype, device=like.device).t()
    return torch.zeros((n, *shape), dtype=like.dtype, device=like.device)
