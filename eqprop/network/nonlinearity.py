"""What an activation φ is: a function, and what a relaxation needs of it: φ' as a pull-back, φ''.

A closed form writes into a buffer that the caller owns, so that no tensor is allocated inside a
relaxation. A plain function works as well: autograd then supplies its derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from eqprop.network.closed_form import ClosedForms

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
        "leaves_zero": (*_OF, "pullback"),
        "is_identity": (*_OF, "value_"),
        "analytic": (*_OF, "value_", "pullback", "slope_", "second_pullback"),
        "inverse": _OF,
        "primitive": _OF,
    }
    is_identity = False
    analytic = False
    """Whether all of this takes complex u and r too, and continues φ analytically."""
    pieces: tuple[tuple[float, float, float, float], ...] = ()
    """Where φ is piecewise linear: (low, high, slope, intercept) of each piece."""
    range = (-math.inf, math.inf)
    """The interval that φ maps to."""
    leaves_zero = True
    """Whether a state at 0 feels what drives it: not where φ'(0) is that of a flat side."""

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

    @property
    def unit_slopes(self) -> bool:
        """Whether φ' is 0 or 1 everywhere, so that φ is a projection on its range."""
        return bool(self.pieces) and all(slope in (0.0, 1.0) for _, _, slope, _ in self.pieces)

    def inverse(self, r: Tensor) -> Tensor:
        """φ⁻¹(r), differentiable; of r in the range of φ, at a bound one of many.

        Raises:
            ValueError: if no closed form is known.
        """
        raise ValueError(f"{self.name} has no inverse in closed form")

    def primitive(self, r: Tensor) -> Tensor:
        """G(r) with G' = φ⁻¹, differentiable.

        Raises:
            ValueError: if no closed form is known.
        """
        raise ValueError(f"{self.name} has no inverse whose integral is a closed form")
