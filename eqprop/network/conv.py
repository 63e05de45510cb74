"""Convolutions, with or without a pool behind them, and the identity that skips a layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from eqprop.network.edge import Edge, Memory, alias
from eqprop.network.pool import POOLS, Pool

_backward = torch.ops.aten.convolution_backward


class Conv(Edge):
    """K(r) = pool(conv(r)); ``weight`` (channels, channels of the source, kernel, kernel).

    Weight and bias start as those of ``torch.nn.Conv2d`` do: uniform in ± 1/√fan_in.

    Args:
        in_shape: (channels, height, width) of the layer that the edge comes from.
        channels: of the layer that it drives.
        kernel, stride, padding: of the convolution, in pixels, the same in both directions.
        pool: what a window of the convolution's result is reduced to; None for no pool.
        pool_size, pool_stride: side of the pool's window, and from one to the next, in pixels.
        bias: whether the layer has a bias, one number a channel.

    Raises:
        ValueError: if the source is no picture, the kernel is larger than it, or the pool's
            windows overlap or do not fill what the convolution leaves.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        channels: Annotated[int, Ge(1), Doc("channels of the layer")],
        kernel: Annotated[int, Ge(1), Doc("side of the kernel, in pixels")] = 3,
        stride: Annotated[int, Ge(1), Doc("from one place of the kernel to the next")] = 1,
        padding: Annotated[int, Ge(0), Doc("zeros around the picture, in pixels")] = 0,
        pool: Annotated[
            Literal["max", "average", "soft"] | None,
            Doc("what a window of the result is reduced to (null: no pool)"),
        ] = None,
        pool_size: Annotated[int, Ge(1), Doc("side of the pool's window, in pixels")] = 2,
        pool_stride: Annotated[
            Annotated[int, Ge(1)] | None,
            Doc("from one window to the next (null: pool_size, the only stride that is possible)"),
        ] = None,
        bias: bool = True,
    ) -> None:
        if len(in_shape) != 3:
            raise ValueError(
                f"a convolution needs a picture (channels, height, width) below it, not the shape "
                f"{tuple(in_shape)}"
            )
        least = kernel - 2 * padding
        if min(in_shape[1:]) < least:
            raise ValueError(
                f"the kernel {kernel} x {kernel} with padding {padding} is larger than the picture "
                f"{tuple(in_shape)} below it"
            )
        conv_shape = [(n + 2 * padding - kernel) // stride + 1 for n in in_shape[1:]]
        size = pool_size if pool is not None else 1
        if pool is not None and pool_stride not in (None, size):
            raise ValueError(
                f"pool_stride={pool_stride}: the pool's windows of {size} x {size} must neither "
                f"overlap nor leave gaps; leave it out, or choose {size}"
            )
        if any(n % size for n in conv_shape):
            raise ValueError(
                f"windows of {size} x {size} do not fill the picture {(channels, *conv_shape)} "
                f"that the convolution makes of {tuple(in_shape)}; change kernel, padding or "
                "pool_size"
            )
        super().__init__(in_shape, (channels, *(n // size for n in conv_shape)))
        self.stride, self.padding = (stride, stride), (padding, padding)
        self._thins = stride > 1 and kernel == 1 and padding == 0
        self.pool: Pool | None = None if pool is None else POOLS[pool](size)
        self.weight = nn.Parameter(torch.empty(channels, in_shape[0], kernel, kernel))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if bias:
            bound = 1.0 / math.sqrt(self.weight[0].numel())
            self.bias = nn.Parameter(torch.empty(channels).uniform_(-bound, bound))

    def extra_repr(self) -> str:
        return f"{self.in_shape} -> {self.out_shape}"

    @property
    def linear(self) -> bool:  # type: ignore[override]
        return self.pool is None or self.pool.linear

    def forward(self, r: Tensor) -> Tensor:
        product = self._product(r)
        return product if self.pool is None else self.pool(product)

    def _product(self, r: Tensor) -> Tensor:
        seen, stride = self._seen(r)
        return nn.functional.conv2d(seen, self.weight, None, stride, self.padding)

    def _seen(self, r: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """The pixels that the kernel is put on, and its stride among them.

        A strided kernel of one pixel leaves the others out here: oneDNN's gradient of its weights
        writes past its buffer where the source has few channels (its issue 6035).
        """
        if not self._thins:
            return r, self.stride
        return r[..., :: self.stride[0], :: self.stride[1]], (1, 1)

    def drive(self, r: Tensor, out: Tensor, add: Tensor | None, memory: Memory) -> None:
        product = self._product(r)
        if self.pool is not None:
            product = self.pool.reduce(product, memory)
        torch.add(product, 0.0 if add is None else add, out=out)

    def pull(
        self, r: Tensor, signal: Tensor, out: Tensor, add: Tensor | None, memory: Memory
    ) -> None:
        pulled = self._adjoint(r, self._spread(signal, memory), self.weight, (True, False))[0]
        torch.add(pulled, 0.0 if add is None else add, out=out)

    def adjoint(self, r: Tensor, signal: Tensor) -> Tensor:
        """As :class:`Edge` says: the pool is where this edge's own product puts it."""
        if not isinstance(self.feedback, Conv) or self.pool is None:
            return super().adjoint(r, signal)
        product, here = alias(self._product(r)), alias(r)
        (spread,) = torch.autograd.grad(self.pool(product), product, signal, create_graph=True)
        back = self.feedback._product(here)
        (pulled,) = torch.autograd.grad(back, here, spread, create_graph=True)
        return pulled

    def gradient(
        self,
        r: Tensor,
        signal: Tensor,
        scale: float,
        out: Sequence[Tensor],
        add: bool,
        memory: Memory,
    ) -> None:
        found = self._adjoint(r, self._spread(signal, memory), self.weight, (False, True))[1]
        torch.add(out[0] if add else torch.zeros_like(out[0]), found, alpha=scale, out=out[0])

    def squared_norm(self, r: Tensor, stiffness: float | Tensor, memory: Memory) -> Tensor:
        """As :class:`Edge` says; of a soft pool, which is not linear, with its slopes at ``r``."""
        if not isinstance(stiffness, Tensor):
            stiffness = r.new_full((len(r), *self.out_shape), stiffness)
        if self.pool is None or not self.pool.mixes:
            spread = self._spread(stiffness, memory)
            return self._adjoint(r, spread, self.weight.square(), (True, False))[0]
        return self._norm_through_windows(r, stiffness, memory)

    def _norm_through_windows(self, r: Tensor, stiffness: Tensor, memory: Memory) -> Tensor:
        """Of a pool that mixes its window: unit by unit, since neighbours in a window add up."""
        rows = []
        for unit in range(math.prod(self.out_shape)):
            one = torch.zeros_like(stiffness).flatten(1)
            one[:, unit] = 1.0
            spread = self._spread(one.view_as(stiffness), memory)
            pulled = self._adjoint(r, spread, self.weight, (True, False))[0]
            weight = stiffness.flatten(1)[:, unit].view(-1, 1, 1, 1)
            rows.append(pulled.square_().mul_(weight))
        return torch.stack(rows).sum(0)

    def _spread(self, signal: Tensor, memory: Memory) -> Tensor:
        """The signal in front of the pool."""
        return signal if self.pool is None else self.pool.spread(signal, memory)

    def _adjoint(
        self, r: Tensor, signal: Tensor, weight: Tensor, wanted: tuple[bool, bool]
    ) -> tuple[Tensor, Tensor]:
        """What a convolution sends back to its input, and to its weight."""
        seen, stride = self._seen(r)
        window = (stride, self.padding, (1, 1), False, (0, 0), 1)
        found = _backward(signal, seen, weight, None, *window, (*wanted, False))
        if seen is r or not wanted[0]:
            return found[0], found[1]
        pulled = torch.zeros_like(r)
        self._seen(pulled)[0].copy_(found[0])
        return pulled, found[1]


class Identity(Edge):
    """K(r) = r: a skip between two layers of one shape, without weights."""

    linear = True

    def __init__(self, in_shape: Sequence[int]) -> None:
        super().__init__(in_shape, in_shape)

    def forward(self, r: Tensor) -> Tensor:
        return r.clone()

    def drive(self, r: Tensor, out: Tensor, add: Tensor | None, memory: Memory) -> None:
        torch.add(r, 0.0 if add is None else add, out=out)

    def pull(
        self, r: Tensor, signal: Tensor, out: Tensor, add: Tensor | None, memory: Memory
    ) -> None:
        torch.add(signal, 0.0 if add is None else add, out=out)

    def squared_norm(self, r: Tensor, stiffness: float | Tensor, memory: Memory) -> Tensor:
        return torch.ones_like(r).mul_(stiffness)
