"""Activations φ, with what a relaxation needs of them: φ, φ' as a pull-back, φ''.

A closed form writes into a buffer that the caller owns, so that no tensor is allocated inside a
relaxation. A plain function works as well: autograd then supplies its derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from eqprop.network.closed_form import ClosedForms

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


def _hard_sigmoid(u: Tensor) -> Tensor:
    return torch.where((u >= 0) & (u <= 1), u, u.detach().clamp(0.0, 1.0))


_OF = ("__call__",)


class Activation(ClosedForms):
    """An element-wise φ, known only as a function; autograd gives its derivatives."""

    closed_forms: ClassVar = {
        "value_": _OF,
        "pullback": _OF,
        "slope_": (*_OF, "pullback"),
        "second_pullback": _OF,
        "at_kinks_": _OF,
        "within_piece_": _OF,
        "pieces": (*_OF, "pullback"),
        "range": _OF,
        "is_identity": (*_OF, "value_"),
    }
    is_identity = False
    pieces: tuple[tuple[float, float, float, float], ...] = ()
    """Where φ is piecewise linear: (low, high, slope, intercept) of each piece."""
    range = (-math.inf, math.inf)
    """The interval that φ maps to."""

    def __init__(self, function: Callable[[Tensor], Tensor], name: str | None = None) -> None:
        self.function = function
        self.name = name or getattr(function, "__name__", type(function).__name__)

    def __repr__(self) -> str:
        return f"<activation {self.name}>"

    def __call__(self, u: Tensor) -> Tensor:
        """φ(u), differentiable, of u's shape."""
        return self.function(u)

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        """Write φ(u) into ``out``; returns ``out``, or ``u`` itself where φ is the identity."""
        return out.copy_(self(u))

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        """Write φ'(u) ⊙ grad into ``out`` and return it; ``r`` is φ(u), already at hand."""
        with torch.enable_grad():
            leaf = u.detach().requires_grad_()
            (pulled,) = torch.autograd.grad(self(leaf), leaf, grad)
        return out.copy_(pulled)

    def slope_(self, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        """Write φ'(u) into ``out`` and return it."""
        return self.pullback(torch.ones_like(u), u, r, out)

    def second_pullback(
        self, grad: Tensor, pulled: Tensor, u: Tensor, r: Tensor, out: Tensor
    ) -> Tensor:
        """Write φ''(u) ⊙ grad into ``out``, 0 where φ' jumps; ``pulled`` is φ'(u) ⊙ grad."""
        with torch.enable_grad():
            leaf = u.detach().requires_grad_()
            (first,) = torch.autograd.grad(self(leaf).sum(), leaf, create_graph=True)
            if not first.requires_grad:  # φ' is constant
                return out.zero_()
            (second,) = torch.autograd.grad(first, leaf, grad, allow_unused=True)
        return out.zero_() if second is None else out.copy_(second)

    def at_kinks_(self, grad: Tensor, pulled: Tensor, u: Tensor) -> None:
        """Where u lies on a kink that ``grad`` leaves, take the slope of the other side.

        ``grad`` is (rest − ``pulled``) with ``pulled`` = φ'(u) ⊙ …; it becomes 0 where both sides
        go uphill. Only a concave kink of φ can hold a state at rest.
        """
        return

    def within_piece_(self, new: Tensor, old: Tensor) -> None:
        """Let no step from ``old`` to ``new`` jump over a kink that may hold a state at rest."""
        return


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


class HardSigmoid(PiecewiseLinear):
    """φ(u) = clamp(u, 0, 1), with φ' = 1 on the closed interval [0, 1].

    The closed interval matters: a state that starts from zeros would otherwise never move. (What
    autograd takes at the ends of torch.clamp depends on the version of torch.)
    """

    pieces = (
        (-math.inf, 0.0, 0.0, 0.0),
        (0.0, 1.0, 1.0, 0.0),
        (1.0, math.inf, 0.0, 1.0),
    )
    range = (0.0, 1.0)

    def __init__(self) -> None:
        super().__init__(_hard_sigmoid, "hard_sigmoid")

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        return torch.clamp(u, 0.0, 1.0, out=out)

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        # hardtanh_backward is open at both ends: the next numbers outside [0, 1] close it.
        info = torch.finfo(u.dtype)
        low, high = -info.smallest_normal, 1.0 + info.eps
        return _hardtanh_backward(grad, u, low, high, grad_input=out)

    def at_kinks_(self, grad: Tensor, pulled: Tensor, u: Tensor) -> None:
        other = grad + pulled
        grad.copy_(torch.where((u == 1.0) & (grad < 0.0), other.clamp_max(0.0), grad))
        grad.copy_(torch.where((u == 0.0) & (grad > 0.0), other.clamp_min(0.0), grad))

    def within_piece_(self, new: Tensor, old: Tensor) -> None:
        low = torch.where(old > 1.0, 1.0, torch.where(old > 0.0, 0.0, -math.inf))
        high = torch.where(old < 0.0, 0.0, torch.where(old < 1.0, 1.0, math.inf))
        torch.clamp(new, low.to(new.dtype), high.to(new.dtype), out=new)


__all__ = ["ACTIVATIONS", "Activation", "as_activation", "one_a_layer"]
ACTIVATIONS: dict[str, Activation] = {
    "identity": Identity(),
    "sigmoid": Sigmoid(),
    "hard_sigmoid": HardSigmoid(),
    "tanh": Tanh(),
    "relu": ReLU(),
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
