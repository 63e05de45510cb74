"""The vector field that the layers of a network follow, as a differentiable function of them.

    V_l = −scale · (∂ε/∂u_l − φ'_l(u_l) ⊙ p_l),  p_l = −∂ε/∂r_l + Σ_e adjoint_e(r_l) σ_target

is −∂E/∂u_l where adjoints have the weights of their edges; where an edge has feedback weights of
its own, it is the gradient of no energy. Partial derivatives are taken by aliases, through which
the graph goes on to what they stand for: so the derivatives of V itself are complete.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from eqprop.network.activation import Activation
from eqprop.network.edge import Edge, alias
from eqprop.network.local import LocalEnergy

# a term that does not depend on one of them has the derivative 0
_grad: Any = partial(torch.autograd.grad, create_graph=True, materialize_grads=True)


class Field:
    """V of the layers ``u``, and the parts that it is made of; all differentiable.

    Args:
        terms: of each layer, the element-wise terms of the energy.
        phi, rate_phi: one activation a layer, and what makes its rate of the state.
        out_of: for each layer, the edges that begin there.
        driven: makes the drive of a layer from the rates of all.
        u: all layers, each (batch, *shape).
    """

    def __init__(
        self,
        terms: Sequence[LocalEnergy],
        phi: Sequence[Activation],
        rate_phi: Sequence[Activation],
        out_of: Sequence[Sequence[Edge]],
        driven: Callable[[int, Sequence[Tensor]], Tensor],
        u: Sequence[Tensor],
    ) -> None:
        self.terms, self.phi, self.rate_phi = terms, phi, rate_phi
        self.out_of, self.driven, self.u = out_of, driven, u
        with torch.enable_grad():
            self.rates = [of(layer) for of, layer in zip(rate_phi, u, strict=True)]
        self._known: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    @torch.enable_grad()
    def drive(self, layer: int) -> Tensor:
        """d of ``layer``."""
        return self.driven(layer, self.rates)

    @torch.enable_grad()
    def pressure(self, layer: int) -> Tensor:
        """p of ``layer``: what its rate is pushed by."""
        pressure = -self._partials(layer)[1]
        for edge in self.out_of[layer]:
            signal = -self._partials(edge.target)[2]
            pressure = pressure + edge.adjoint(self.rates[layer], signal)
        return pressure

    @torch.enable_grad()
    def force(self, layer: int, at: Tensor | None = None) -> Tensor:
        """V of ``layer``; with ``at`` what it would follow there, under the same d and p."""
        here = alias(self.u[layer] if at is None else at)
        rate = self.rate_phi[layer](here)
        (pulled,) = _grad(rate, here, self.pressure(layer))
        own = self._partials(layer)[0] if at is None else self._of_state(layer, here, rate)
        found: Tensor = (pulled - own) * self.terms[layer].scale
        return found

    def _of_state(self, layer: int, at: Tensor, rate: Tensor) -> Tensor:
        u, r = alias(at), alias(rate)
        value = self.terms[layer].value(u, r, self.drive(layer), self.phi[layer])
        (found,) = _grad(value.sum(), u)
        return found

    def _partials(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """∂ε/∂u, ∂ε/∂r and ∂ε/∂d of each unit of ``layer``."""
        if layer not in self._known:
            u, r = alias(self.u[layer]), alias(self.rates[layer])
            d = alias(_Beside.apply(self.drive(layer), u))
            value = self.terms[layer].value(u, r, d, self.phi[layer])
            self._known[layer] = _grad(value.sum(), (u, r, d))
        return self._known[layer]


class _Beside(torch.autograd.Function):
    """x as it is, but as deep in the graph as ``other``.

    Autograd searches the graph down to the shallowest tensor that it derives with respect to. The
    drive from a clamped layer is as shallow as the weights, and without this each step of an
    unrolled relaxation would search through all steps before it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, other: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *found: Any) -> tuple[Tensor, None]:
        return found[0], None
