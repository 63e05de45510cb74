"""Tensors that stay where they are as long as a state lives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex

import torch
from torch import Tensor

# A product that ends in a layer this narrow (the classes) goes into a buffer stored column by
# column: BLAS computes it about twice as fast.
NARROW = 32


class Layers(list[Tensor]):
    """The tensors u[0] … u[L]; assigning to one copies into it, so no caller's tensor is kept.

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
                f"but was given {tuple(value.shape)}"
            )
        with torch.no_grad():
            layer.copy_(value)


def zeros(
    shapes: Sequence[tuple[int, ...]], batch_size: int, like: Tensor, channels_last: bool
) -> list[Tensor]:
    """One tensor (batch, *shape) a layer, in the dtype and on the device of ``like``."""
    found = [like.new_zeros(batch_size, *shape) for shape in shapes]
    if channels_last:
        last = torch.channels_last
        return [t.to(memory_format=last) if t.dim() == 4 else t for t in found]
    return found


def zeros_for_product(u: Tensor) -> Tensor:
    """A buffer shaped like ``u`` for what drives it."""
    if u.dim() == 2 and u.shape[1] <= NARROW:
        return u.new_zeros(u.shape[1], len(u)).t()
    return torch.zeros_like(u)
