"""The state of a network for one batch, and the buffers beside it, which never move.

Buffers that live as long as the state does are what makes a relaxation cheap (allocation and
passes over memory cost more than its arithmetic) and what a CUDA graph needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from eqprop.network.activation import Activation
from eqprop.network.local import Site

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


class State:
    """What a network relaxes: the layers of one batch, and which of them are clamped.

    Args:
        shapes: one sample's shape of each layer.
        phi: one activation a layer.
        drives: for each layer, those that it drives.
        batch_size: samples, fixed.
        like: a tensor of the dtype and device wanted.
        generator: source of ``reset``'s noise; None is torch's own.

    Attributes:
        u: the layers, each (batch, *shape).
        clamped: for each layer, whether it is held.
        sites: for each layer, its state, rate, drive and pressure: the buffers themselves.
        signal, gradient, curvature, pulled, work, contrast: more buffers shaped like ``u``.
        holding: whether the weights are held, so that what is known stays known.
        norm: what a Newton step keeps of the edges out of a layer while the weights are held.
        rate_known, drive_known: whether a buffer holds what belongs to the layers as they are now.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        phi: Sequence[Activation],
        drives: Sequence[Sequence[int]],
        batch_size: int,
        like: Tensor,
        generator: torch.Generator | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"a batch has at least one sample, not {batch_size}")
        self.batch_size = batch_size
        self.drives = drives
        self.generator = generator

        def buffers() -> list[Tensor]:
            return [like.new_zeros(batch_size, *shape) for shape in shapes]

        self.u = Layers(buffers())
        self.clamped = [False] * len(shapes)
        self.signal, self.contrast = buffers(), buffers()
        self.gradient, self.curvature = buffers(), buffers()
        self.pulled, self.work = buffers(), buffers()
        self.sites = [
            Site(
                phi=phi[layer],
                u=u,
                r=u if phi[layer].is_identity else torch.zeros_like(u),
                d=_product_buffer(shapes[layer], batch_size, like),
                p=torch.zeros_like(u) if drives[layer] else None,
            )
            for layer, u in enumerate(self.u)
        ]
        self.holding = False
        self.forget()

    def clamp(self, layer: int, value: Tensor) -> None:
        """Hold ``layer`` at ``value`` (batch, *shape), which is copied.

        Raises:
            ValueError: if the shape is not that of the layer.
        """
        self.u[layer] = value
        self.clamped[layer] = True
        self.forget()

    def release(self, layer: int) -> None:
        """Let ``layer`` move again, from where it is."""
        self.clamped[layer] = False
        self.forget()

    @property
    def free(self) -> list[int]:
        """The layers that are not clamped, in order."""
        return [layer for layer, clamped in enumerate(self.clamped) if not clamped]

    def reset(self, init: str = "normal") -> None:
        """Draw every free layer from N(0, 1), or set it to ``zeros``."""
        for layer in self.free:
            if init == "normal":
                self.u[layer].normal_(generator=self.generator)
            else:
                self.u[layer].zero_()
        self.forget()

    def copy(self) -> list[Tensor]:
        """Copies of the free layers; clamped ones are shared."""
        return [
            u if clamped else u.clone() for u, clamped in zip(self.u, self.clamped, strict=True)
        ]

    def restore(self, layers: Sequence[Tensor]) -> None:
        """Put back what ``copy`` returned."""
        for layer in self.free:
            self.u[layer] = layers[layer]
            self.moved(layer)

    # ------------------------------------------------- what is known, while the weights are held

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within it no weight changes, so that rates and drives of unmoved layers stay known.

        The product of a clamped input with its weights, the only large one of a relaxation, is so
        computed once for all phases of a batch. Whoever moves a layer says so by `Network.moved`.
        """
        if self.holding:
            yield
            return
        self.holding = True
        try:
            yield
        finally:
            self.holding = False
            self.forget()

    def forget(self) -> None:
        """Nothing is known any more: weights or layers have changed."""
        layers = len(self.u)
        self.rate_known, self.drive_known = [False] * layers, [False] * layers
        self.norm: list[Tensor | float | None] = [None] * layers

    def moved(self, layer: int) -> None:
        """Say that ``layer`` has moved."""
        self.rate_known[layer] = False
        for target in self.drives[layer]:
            self.drive_known[target] = False


def _product_buffer(shape: tuple[int, ...], batch_size: int, like: Tensor) -> Tensor:
    if len(shape) == 1 and shape[0] <= NARROW:
        return like.new_zeros(*shape, batch_size).t()
    return like.new_zeros(batch_size, *shape)
