"""The activations that have a name, in closed form, and how any other function becomes one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from eqprop.network.analytic import logit, sigmoid, softplus, tanh, x_log_x
from eqprop.network.nonlinearity import Activation as Activation
from eqprop.network.piecewise import (
    HalfHardSigmoid,
    HardSigmoid,
    Identity,
    LeakyReLU,
    ReLU,
    ReLU6,
)

_aten = torch.ops.aten
_sigmoid_backward = _aten.sigmoid_backward.grad_input
_tanh_backward = _aten.tanh_backward.grad_input
_softplus_out = _aten.softplus.out
_softplus_backward = _aten.softplus_backward.grad_input


def _inside(r: Tensor, low: float) -> Tensor:
    """r in the open interval from ``low`` to 1, at whose ends the inverse is infinite."""
    tiny = torch.finfo(r.dtype).eps
    if r.is_complex():  # at these ends alone
        inside = torch.where((r - low).abs() < tiny, low + tiny, r)
        return torch.where((r - 1.0).abs() < tiny, 1.0 - tiny, inside)
    return r.clamp(low + tiny, 1.0 - tiny)


class Sigmoid(Activation):
    """φ(u) = 1 / (1 + exp(−u))."""

    range = (0.0, 1.0)
    analytic = True

    def __init__(self) -> None:
        super().__init__(torch.sigmoid)

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        if u.is_complex():
            return out.copy_(sigmoid(u))
        return torch.sigmoid(u, out=out)

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        if r.is_complex():  # torch would conjugate φ'
            return torch.mul(grad, r - r * r, out=out)
        return _sigmoid_backward(grad, r, grad_input=out)

    def slope_(self, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        return torch.addcmul(r, r, r, value=-1.0, out=out)

    def second_pullback(
        self, grad: Tensor, pulled: Tensor, u: Tensor, r: Tensor, out: Tensor
    ) -> Tensor:
        return torch.addcmul(pulled, pulled, r, value=-2.0, out=out)  # φ'' = φ' (1 − 2 r)

    def inverse(self, r: Tensor) -> Tensor:
        if r.is_complex():
            return logit(_inside(r, 0.0))
        return torch.logit(r, eps=torch.finfo(r.dtype).eps)

    def primitive(self, r: Tensor) -> Tensor:
        inside = _inside(r, 0.0)
        total = x_log_x(inside) + x_log_x(1.0 - inside)
        return total + Sigmoid.inverse(self, inside).detach() * (r - inside)


class ShiftedSigmoid(Sigmoid):
    """φ(u) = sigmoid(4 (u − ½)): as steep as the identity at ½, a smooth ``hard_sigmoid``."""

    analytic = True

    def __init__(self) -> None:
        Activation.__init__(self, self._of, "shifted_sigmoid")

    def _of(self, u: Tensor) -> Tensor:
        return sigmoid(4.0 * u - 2.0)

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        return super().value_(torch.mul(u, 4.0, out=out).sub_(2.0), out)

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        return super().pullback(grad, u, r, out).mul_(4.0)

    def slope_(self, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        return super().slope_(u, r, out).mul_(4.0)

    def second_pullback(
        self, grad: Tensor, pulled: Tensor, u: Tensor, r: Tensor, out: Tensor
    ) -> Tensor:
        return super().second_pullback(grad, pulled, u, r, out).mul_(4.0)

    def inverse(self, r: Tensor) -> Tensor:
        return 0.25 * super().inverse(r) + 0.5

    def primitive(self, r: Tensor) -> Tensor:
        return 0.25 * super().primitive(r) + 0.5 * r


class Tanh(Activation):
    """φ(u) = tanh(u)."""

    range = (-1.0, 1.0)
    analytic = True

    def __init__(self) -> None:
        super().__init__(torch.tanh)

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        if u.is_complex():
            return out.copy_(tanh(u))
        return torch.tanh(u, out=out)

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        if r.is_complex():
            return torch.mul(grad, 1.0 - r * r, out=out)
        return _tanh_backward(grad, r, grad_input=out)

    def second_pullback(
        self, grad: Tensor, pulled: Tensor, u: Tensor, r: Tensor, out: Tensor
    ) -> Tensor:
        return torch.mul(pulled, r, out=out).mul_(-2.0)  # φ'' = −2 φ' r

    def inverse(self, r: Tensor) -> Tensor:
        return torch.atanh(_inside(r, -1.0))

    def primitive(self, r: Tensor) -> Tensor:
        inside = _inside(r, -1.0)
        total = x_log_x(1.0 + inside) + x_log_x(1.0 - inside)
        return 0.5 * total + self.inverse(inside).detach() * (r - inside)


class Softplus(Activation):
    """φ(u) = log(1 + exp(u))."""

    range = (0.0, math.inf)
    analytic = True

    def __init__(self) -> None:
        super().__init__(softplus, "softplus")

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        if u.is_complex():
            return out.copy_(softplus(u))
        return _softplus_out(u, 1.0, 20.0, out=out)

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        if u.is_complex():
            return torch.mul(grad, sigmoid(u), out=out)
        return _softplus_backward(grad, u, 1.0, 20.0, grad_input=out)

    def second_pullback(
        self, grad: Tensor, pulled: Tensor, u: Tensor, r: Tensor, out: Tensor
    ) -> Tensor:
        slope = sigmoid(u)
        return torch.mul(grad, slope - slope * slope, out=out)


ACTIVATIONS: dict[str, Activation] = {
    "identity": Identity(),
    "sigmoid": Sigmoid(),
    "shifted_sigmoid": ShiftedSigmoid(),
    "hard_sigmoid": HardSigmoid(),
    "half_hard_sigmoid": HalfHardSigmoid(),
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
