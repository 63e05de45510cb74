"""The piecewise linear activations, whose kinks can hold a unit at rest."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from eqprop.network.nonlinearity import Activation

_aten = torch.ops.aten
_threshold_backward = _aten.threshold_backward.grad_input
_leaky_relu_out = _aten.leaky_relu.out
_leaky_relu_backward = _aten.leaky_relu_backward.grad_input
_hardtanh_backward = _aten.hardtanh_backward.grad_input
LEAKY_SLOPE = 0.05


def _identity(u: Tensor) -> Tensor:
    return u


def _leaky_relu(u: Tensor) -> Tensor:
    return F.leaky_relu(u, LEAKY_SLOPE)


class PiecewiseLinear(Activation):
    """An activation whose φ'' is 0 wherever it is defined, however φ' is written."""

    closed_forms: ClassVar = {**Activation.closed_forms, "second_pullback": ("__call__",)}

    def inverse(self, r: Tensor) -> Tensor:
        return r  # where the slope is 1; where it is 0, one of many

    def primitive(self, r: Tensor) -> Tensor:
        return 0.5 * r * self.inverse(r)

    def second_pullback(
        self, grad: Tensor, pulled: Tensor, u: Tensor, r: Tensor, out: Tensor
    ) -> Tensor:
        return out.zero_()


class Identity(PiecewiseLinear):
    """φ(u) = u."""

    is_identity = analytic = True
    pieces = ((-math.inf, math.inf, 1.0, 0.0),)

    def __init__(self) -> None:
        super().__init__(_identity, "identity")

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        return u

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        return grad if out is grad else out.copy_(grad)


class ReLU(PiecewiseLinear):
    """φ(u) = max(u, 0), with φ'(0) = 0."""

    pieces = ((-math.inf, 0.0, 0.0, 0.0), (0.0, math.inf, 1.0, 0.0))
    range = (0.0, math.inf)
    leaves_zero = False

    def __init__(self) -> None:
        super().__init__(torch.relu)

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        return torch.clamp_min(u, 0.0, out=out)

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        return _threshold_backward(grad, r, 0.0, grad_input=out)


class LeakyReLU(PiecewiseLinear):
    """φ(u) = u for u > 0, 0.05 u elsewhere."""

    pieces = ((-math.inf, 0.0, LEAKY_SLOPE, 0.0), (0.0, math.inf, 1.0, 0.0))

    def __init__(self) -> None:
        super().__init__(_leaky_relu, "leaky_relu")

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        return _leaky_relu_out(u, LEAKY_SLOPE, out=out)

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        return _leaky_relu_backward(grad, u, LEAKY_SLOPE, False, grad_input=out)

    def inverse(self, r: Tensor) -> Tensor:
        return torch.where(r > 0.0, r, r / LEAKY_SLOPE)


def _pieces(high: float) -> tuple[tuple[float, float, float, float], ...]:
    return ((-math.inf, 0.0, 0.0, 0.0), (0.0, high, 1.0, 0.0), (high, math.inf, 0.0, high))


class HardSigmoid(PiecewiseLinear):
    """φ(u) = clamp(u, 0, 1), with φ' = 1 on the closed interval [0, 1].

    The closed interval matters: a state that starts from zeros would otherwise never move. (What
    autograd takes at the ends of torch.clamp depends on the version of torch.)
    """

    pieces = _pieces(1.0)
    range = (0.0, 1.0)

    def __init__(self, name: str = "hard_sigmoid") -> None:
        super().__init__(self._clip, name)

    def _clip(self, u: Tensor) -> Tensor:
        low, high = self.range
        return torch.where((u >= low) & (u <= high), u, u.detach().clamp(low, high))

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        return torch.clamp(u, *self.range, out=out)

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        # hardtanh_backward is open at both ends: the next numbers outside close the interval.
        info = torch.finfo(u.dtype)
        low, high = -info.smallest_normal, self.range[1] * (1.0 + info.eps)
        return _hardtanh_backward(grad, u, low, high, grad_input=out)

    def at_kinks_(self, grad: Tensor, pulled: Tensor, u: Tensor) -> None:
        low, high = self.range
        other = grad + pulled
        grad.copy_(torch.where((u == high) & (grad < 0.0), other.clamp_max(0.0), grad))
        grad.copy_(torch.where((u == low) & (grad > 0.0), other.clamp_min(0.0), grad))

    def within_piece_(self, new: Tensor, old: Tensor) -> None:
        least, most = self.range
        low = torch.where(old > most, most, torch.where(old > least, least, -math.inf))
        high = torch.where(old < least, least, torch.where(old < most, most, math.inf))
        torch.clamp(new, low.to(new.dtype), high.to(new.dtype), out=new)


class ReLU6(HardSigmoid):
    """φ(u) = clamp(u, 0, 6)."""

    pieces = _pieces(6.0)
    range = (0.0, 6.0)

    def __init__(self) -> None:
        super().__init__("relu6")


class HalfHardSigmoid(HardSigmoid):
    """φ(u) = clamp(u / 2, 0, 1), with φ' = ½ on the closed interval [0, 2]."""

    pieces = ((-math.inf, 0.0, 0.0, 0.0), (0.0, 2.0, 0.5, 0.0), (2.0, math.inf, 0.0, 1.0))

    def __init__(self) -> None:
        super().__init__("half_hard_sigmoid")

    def _clip(self, u: Tensor) -> Tensor:
        return super()._clip(0.5 * u)

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        return torch.mul(u, 0.5, out=out).clamp_(*self.range)

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        return super().pullback(grad, 0.5 * u, r, out).mul_(0.5)

    def at_kinks_(self, grad: Tensor, pulled: Tensor, u: Tensor) -> None:
        super().at_kinks_(grad, pulled, 0.5 * u)

    def within_piece_(self, new: Tensor, old: Tensor) -> None:
        super().within_piece_(new.mul_(0.5), 0.5 * old)
        new.mul_(2.0)

    def inverse(self, r: Tensor) -> Tensor:
        return 2.0 * r
