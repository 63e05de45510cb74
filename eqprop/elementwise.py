"""An element-wise function of the state, and what a relaxation needs of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Activation:
    """An element-wise φ, known only as a function; autograd gives its derivatives."""

    name = "function"
    is_identity = False
    pieces: tuple[tuple[float, float, float, float], ...] = ()
    """Where φ is piecewise linear: (low, high, slope, intercept) of each piece."""

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

    def second_pullback(
        self, grad: Tensor, pulled: Tensor, u: Tensor, r: Tensor, out: Tensor
    ) -> Tensor:
        """Write φ''(u) ⊙ grad into ``out``; ``pulled`` is φ'(u) ⊙ grad, already at hand."""
        return self.second_(u, r, out).mul_(grad)

    def at_kinks_(self, grad: Tensor, pulled: Tensor, u: Tensor) -> None:
        """Where u lies on a kink that ``grad`` leaves, take the slope of the other side.

        ``grad`` is (rest − ``pulled``) with ``pulled`` = φ'(u) ⊙ …; it becomes 0 where both sides
        go uphill. Only a concave kink of φ can hold a state at rest.
        """
        return

    def within_piece_(self, new: Tensor, old: Tensor) -> None:
        """Let no step from ``old`` to ``new`` jump over a kink that may hold a state at rest."""
        return

    def derivative(self, u: Tensor) -> Tensor:
        """φ'(u), of u's shape."""
        out = torch.empty_like(u)
        r = self.value_(u, torch.empty_like(u))
        return self.pullback(torch.ones_like(u), u, r, out)

    def second_derivative(self, u: Tensor) -> Tensor:
        """φ''(u), of u's shape; 0 where φ' jumps."""
        r = self.value_(u, torch.empty_like(u))
        return self.second_(u, r, torch.empty_like(u))
