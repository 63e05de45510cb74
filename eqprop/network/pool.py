"""Pools behind a convolution: each window of ``size`` × ``size`` pixels becomes one."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from eqprop.network.analytic import softmax
from eqprop.network.edge import Memory

_max_backward = torch.ops.aten.max_pool2d_with_indices_backward
_average_backward = torch.ops.aten.avg_pool2d_backward


class Pool(ABC):
    """Reduces windows that neither overlap nor leave gaps.

    Attributes:
        mixes: whether several pixels of a window count.
        linear: whether the pool of a sum is the sum of the pools.
        analytic: whether it takes complex pixels too, as an analytic function of them; one that is
            linear need not.
    """

    mixes = True
    linear = False
    analytic = False

    def __init__(self, size: int) -> None:
        self.size = size

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) to 1/size of height and width, differentiable."""

    @abstractmethod
    def reduce(self, x: Tensor, memory: Memory) -> Tensor:
        """As a call, keeping in ``memory`` what ``spread`` needs."""

    @abstractmethod
    def spread(self, signal: Tensor, memory: Memory) -> Tensor:
        """The adjoint of the derivative at the x that was reduced last, of x's shape."""


class Max(Pool):
    """The largest of a window; where two are, the first."""

    mixes = False

    def __call__(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.size)

    def reduce(self, x: Tensor, memory: Memory) -> Tensor:
        found, indices = F.max_pool2d_with_indices(x, (self.size, self.size))
        memory["x"], memory["indices"] = x, indices
        return found

    def spread(self, signal: Tensor, memory: Memory) -> Tensor:
        window = ([self.size, self.size], [self.size, self.size], [0, 0], [1, 1], False)
        found: Tensor = _max_backward(signal, memory["x"], *window, memory["indices"])
        return found


class Average(Pool):
    """The mean of a window."""

    linear = True

    def __call__(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.size)

    def reduce(self, x: Tensor, memory: Memory) -> Tensor:
        memory["x"] = x
        return F.avg_pool2d(x, self.size)

    def spread(self, signal: Tensor, memory: Memory) -> Tensor:
        window = ([self.size, self.size], [self.size, self.size], [0, 0], False, True, None)
        found: Tensor = _average_backward(signal, memory["x"], *window)
        return found


class Soft(Pool):
    """Σ x eˣ / Σ eˣ over a window: smooth, between the mean and the largest."""

    analytic = True

    def __call__(self, x: Tensor) -> Tensor:
        windows = self._windows(x)
        return (softmax(windows, -1) * windows).sum(-1)

    def reduce(self, x: Tensor, memory: Memory) -> Tensor:
        windows = self._windows(x)
        shares = softmax(windows, -1)
        found = (shares * windows).sum(-1)
        memory["slope"] = shares * (1.0 + windows - found.unsqueeze(-1))  # ∂/∂x of the share's mean
        return found

    def spread(self, signal: Tensor, memory: Memory) -> Tensor:
        n, (batch, channels, height, width) = self.size, signal.shape
        found = memory["slope"] * signal.unsqueeze(-1)
        found = found.view(batch, channels, height, width, n, n).transpose(3, 4)
        return found.reshape(batch, channels, height * n, width * n)

    def _windows(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) as (batch, channels, rows, columns, size²)."""
        n, (batch, channels, height, width) = self.size, x.shape
        cut = x.reshape(batch, channels, height // n, n, width // n, n).transpose(3, 4)
        return cut.reshape(batch, channels, height // n, width // n, n * n)


POOLS: dict[str, type[Pool]] = {"max": Max, "average": Average, "soft": Soft}
