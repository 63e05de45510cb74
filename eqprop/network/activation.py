"""The activations that have a name, in closed form, and how any other function becomes one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from eqprop.network.nonlinearity import Activation as Activation

_aten = torch.ops.aten
_sigmoid_backward = _aten.sigmoid_backward.grad_input
_tanh_backward = _aten.tanh_backward.grad_input
_threshold_backward = _aten.threshold_backward.grad_input
_leaky_relu_out = _aten.leaky_relu.out
_leaky_relu_backward = _aten.leaky_relu_backward.grad_input
_hardtanh_backward = _aten.hardtanh_backward.grad_input
_softplus_out = _aten.softplus.out
_softplus_backward = _aten.softplus_backward.grad_input
LEAKY_SLOPE = 0.05


def _identity(u: Tensor) -> Tensor:
    return u


def _leaky_relu(u: Tensor) -> Tensor:
    return F.leaky_relu(u, LEAKY_SLOPE)


_OF = ("__call__",)


def _inside(r: Tensor, low: float) -> Tensor:
    """r in the open interval from ``low`` to 1, at whose ends the inverse is infinite."""
    tiny = torch.finfo(r.dtype).eps
    return r.clamp(low + tiny, 1.0 - tiny)


class Sigmoid(Activation):
    """φ(u) = 1 / (1 + exp(−u))."""

    range = (0.0, 1.0)

    def __init__(self) -> None:
        super().__init__(torch.sigmoid)

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        return torch.sigmoid(u, out=out)

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        return _sigmoid_backward(grad, r, grad_input=out)

    def slope_(self, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        return torch.addcmul(r, r, r, value=-1.0, out=out)

    def second_pullback(
        self, grad: Tensor, pulled: Tensor, u: Tensor, r: Tensor, out: Tensor
    ) -> Tensor:
        return torch.addcmul(pulled, pulled, r, value=-2.0, out=out)  # φ'' = φ' (1 − 2 r)

    def inverse(self, r: Tensor) -> Tensor:
        return torch.logit(r, eps=torch.finfo(r.dtype).eps)

    def primitive(self, r: Tensor) -> Tensor:
        inside = _inside(r, 0.0)
        total = torch.xlogy(inside, inside) + torch.xlogy(1.0 - inside, 1.0 - inside)
        return total + self.inverse(inside).detach() * (r - inside)


class Tanh(Activation):
    """φ(u) = tanh(u)."""

    range = (-1.0, 1.0)

    def __init__(self) -> None:
        super().__init__(torch.tanh)

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        return torch.tanh(u, out=out)

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        return _tanh_backward(grad, r, grad_input=out)

    def second_pullback(
        self, grad: Tensor, pulled: Tensor, u: Tensor, r: Tensor, out: Tensor
    ) -> Tensor:
        return torch.mul(pulled, r, out=out).mul_(-2.0)  # φ'' = −2 φ' r

    def inverse(self, r: Tensor) -> Tensor:
        return torch.atanh(_inside(r, -1.0))

    def primitive(self, r: Tensor) -> Tensor:
        inside = _inside(r, -1.0)
        total = torch.xlogy(1.0 + inside, 1.0 + inside) + torch.xlogy(1.0 - inside, 1.0 - inside)
        return 0.5 * total + self.inverse(inside).detach() * (r - inside)


class Softplus(Activation):
    """φ(u) = log(1 + exp(u))."""

    range = (0.0, math.inf)

    def __init__(self) -> None:
        super().__init__(F.softplus, "softplus")

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        return _softplus_out(u, 1.0, 20.0, out=out)

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        return _softplus_backward(grad, u, 1.0, 20.0, grad_input=out)

    def second_pullback(
        self, grad: Tensor, pulled: Tensor, u: Tensor, r: Tensor, out: Tensor
    ) -> Tensor:
        slope = torch.sigmoid(u)
        return torch.mul(grad, slope - slope * slope, out=out)


class PiecewiseLinear(Activation):
    """An activation whose φ'' is 0 wherever it is defined, however φ' is written."""

    closed_forms: ClassVar = {**Activation.closed_forms, "second_pullback": _OF}

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

    is_identity = True
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


ACTIVATIONS: dict[str, Activation] = {
    "identity": Identity(),
    "sigmoid": Sigmoid(),
    "hard_sigmoid": HardSigmoid(),
    "tanh": Tanh(),
    "relu": ReLU(),
    "relu6": ReLU6(),
    "leaky_relu": LeakyReLU(),
    "softplus": Softplus(),
}
_KNOWN_FUNCTIONS: dict[Any, str] = {
    torch.sigmoid: "sigmoid",
    F.sigmoid: "sigmoid",
    torch.tanh: "tanh",
    F.tanh: "tanh",
    torch.relu: "relu",
    F.relu: "relu",
    F.relu6: "relu6",
    F.softplus: "softplus",
}


def as_activation(phi: str | Callable[[Tensor], Tensor] | Activation) -> Activation:
    """The activation for a name, a known torch function, or any plain function.

    Raises:
        ValueError, TypeError: for an unknown name, or something that cannot be called.
    """
    if isinstance(phi, Activation):
        return phi
    if isinstance(phi, str):
        if phi not in ACTIVATIONS:
            raise ValueError(f"unknown activation {phi!r}; known are {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[phi]
    if not callable(phi):
        raise TypeError(f"an activation is a name or a function, not {phi!r}")
    try:
        known = _KNOWN_FUNCTIONS.get(phi)
    except TypeError:  # an unhashable callable
        known = None
    return ACTIVATIONS[known] if known else Activation(phi)


def one_a_layer(
    phi: Sequence[str | Callable[[Tensor], Tensor]] | str, n_layers: int
) -> list[Activation]:
    """One activation a layer; where one is missing, the input's is the identity.

    Raises:
        ValueError, TypeError: if their number is wrong, or one of them is no activation.
    """
    if isinstance(phi, str):
        raise TypeError(f"phi is a list with one activation a layer, not the text {phi!r}")
    activations = [as_activation(function) for function in phi]
    if len(activations) == n_layers - 1:
        activations.insert(0, ACTIVATIONS["identity"])
    if len(activations) != n_layers:
        raise ValueError(f"{n_layers} layers need one activation each, not {len(activations)}")
    return activations
