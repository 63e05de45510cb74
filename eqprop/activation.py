"""Activations φ with what a relaxation needs of them: φ, φ' as a pull-back, φ''.

A closed form writes into a buffer that the caller owns, so that no tensor is allocated inside a
relaxation. A plain function works as well: autograd then supplies its derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_aten = torch.ops.aten
LEAKY_SLOPE = 0.05


class Activation:
    """An element-wise φ, known only as a function; autograd gives its derivatives."""

    name = "function"
    piecewise_linear = False

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)

    def __repr__(self) -> str:
        return f"<activation {self.name}>"

    def __call__(self, u: Tensor) -> Tensor:
        """φ(u), differentiable, of u's shape."""
        return self.function(u)

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        """Write φ(u) into ``out``; returns ``out``, or ``u`` itself where φ is the identity."""
        return out.copy_(self.function(u))

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        """Write φ'(u) ⊙ grad into ``out`` and return it; ``r`` is φ(u), already at hand."""
        with torch.enable_grad():
            leaf = u.detach().requires_grad_()
            (pulled,) = torch.autograd.grad(self.function(leaf), leaf, grad)
        return out.copy_(pulled)

    def second_(self, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        """Write φ''(u) into ``out`` and return it; 0 where φ' jumps."""
        with torch.enable_grad():
            leaf = u.detach().requires_grad_()
            (first,) = torch.autograd.grad(self.function(leaf).sum(), leaf, create_graph=True)
            if not first.requires_grad:  # φ' is constant
                return out.zero_()
            (second,) = torch.autograd.grad(first.sum(), leaf, allow_unused=True)
        return out.zero_() if second is None else out.copy_(second)

    def derivative(self, u: Tensor) -> Tensor:
        """φ'(u), of u's shape."""
        out = torch.empty_like(u)
        r = self.value_(u, torch.empty_like(u))
        return self.pullback(torch.ones_like(u), u, r, out)

    def second_derivative(self, u: Tensor) -> Tensor:
        """φ''(u), of u's shape; 0 where φ' jumps."""
        r = self.value_(u, torch.empty_like(u))
        return self.second_(u, r, torch.empty_like(u))


class Identity(Activation):
    """φ(u) = u."""

    piecewise_linear = True

    def __init__(self) -> None:
        super().__init__(lambda u: u)
        self.name = "identity"

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        return u

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        return grad if out is grad else out.copy_(grad)

    def second_(self, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        return out.zero_()


class Sigmoid(Activation):
    """φ(u) = 1 / (1 + exp(−u))."""

    def __init__(self) -> None:
        super().__init__(torch.sigmoid)

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        return torch.sigmoid(u, out=out)

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        return _aten.sigmoid_backward.grad_input(grad, r, grad_input=out)

    def second_(self, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        torch.mul(r, -2.0, out=out).add_(1.0)
        return _aten.sigmoid_backward.grad_input(out, r, grad_input=out)


class Tanh(Activation):
    """φ(u) = tanh(u)."""

    def __init__(self) -> None:
        super().__init__(torch.tanh)

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        return torch.tanh(u, out=out)

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        return _aten.tanh_backward.grad_input(grad, r, grad_input=out)

    def second_(self, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        torch.mul(r, -2.0, out=out)
        return _aten.tanh_backward.grad_input(out, r, grad_input=out)


class PiecewiseLinear(Activation):
    """An activation whose φ'' is 0 wherever it is defined."""

    piecewise_linear = True

    def second_(self, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        return out.zero_()


class ReLU(PiecewiseLinear):
    """φ(u) = max(u, 0), with φ'(0) = 0."""

    def __init__(self) -> None:
        super().__init__(torch.relu)

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        return torch.clamp_min(u, 0.0, out=out)

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        return _aten.threshold_backward.grad_input(grad, r, 0.0, grad_input=out)


class LeakyReLU(PiecewiseLinear):
    """φ(u) = u for u > 0, 0.05 u elsewhere."""

    def __init__(self) -> None:
        super().__init__(lambda u: F.leaky_relu(u, LEAKY_SLOPE))
        self.name = "leaky_relu"

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        return _aten.leaky_relu.out(u, LEAKY_SLOPE, out=out)

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        return _aten.leaky_relu_backward.grad_input(grad, u, LEAKY_SLOPE, False, grad_input=out)


class HardSigmoid(PiecewiseLinear):
    """φ(u) = clamp(u, 0, 1), with φ' = 1 on the closed interval, as autograd has it.

    The closed interval matters: a state that starts from zeros would otherwise never move.
    """

    def __init__(self) -> None:
        super().__init__(lambda u: torch.clamp(u, 0.0, 1.0))
        self.name = "hard_sigmoid"

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        return torch.clamp(u, 0.0, 1.0, out=out)

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        # hardtanh_backward is open at both ends: the next numbers outside [0, 1] close it.
        info = torch.finfo(u.dtype)
        low, high = -info.smallest_normal, 1.0 + info.eps
        return _aten.hardtanh_backward.grad_input(grad, u, low, high, grad_input=out)


class Softplus(Activation):
    """φ(u) = log(1 + exp(u))."""

    def __init__(self) -> None:
        super().__init__(F.softplus)
        self.name = "softplus"

    def value_(self, u: Tensor, out: Tensor) -> Tensor:
        return _aten.softplus.out(u, 1.0, 20.0, out=out)

    def pullback(self, grad: Tensor, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        return _aten.softplus_backward.grad_input(grad, u, 1.0, 20.0, grad_input=out)

    def second_(self, u: Tensor, r: Tensor, out: Tensor) -> Tensor:
        torch.sigmoid(u, out=out)
        return torch.addcmul(out, out, out, value=-1.0, out=out)


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
        ValueError: for a name that is not in ``ACTIVATIONS``.
        TypeError: for something that cannot be called.
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
