"""The local terms of an energy: what each unit adds, given its state, its rate and its drive.

With the edges K_e, the rates r_l and the drives d_l = b_l + Σ_e K_e(r_source),

    E(u) = scale · Σ_{l ≥ 1} Σ_units ε(u_l, r_l, d_l).

The rate is r_l = φ_l(u_l); or the state itself, where φ_l acts on the drive (``acts_on_drive``). A
layer sends back the signal σ_l = −∂ε/∂d_l; what it receives is the pressure on its rate,
p_l = −∂ε/∂r_l + Σ_e K_eᵀ σ_target. So

    ∂E/∂u_l = scale · (∂ε/∂u_l − φ'_l(u_l) ⊙ p_l),
    ∂E/∂θ_e = −scale · ⟨σ_target · ∂K_e(r_source)/∂θ_e⟩,  ∂E/∂b_l = −scale · ⟨σ_l⟩.

A new energy is ``value``, element by element: autograd gives its derivatives, and the network does
the rest. Each closed form that is added saves time and changes no result.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from eqprop.network.activation import ACTIVATIONS, Activation
from eqprop.network.closed_form import ClosedForms


class Site(NamedTuple):
    """One layer as its local terms see it; each tensor is (batch, *shape)."""

    phi: Activation
    u: Tensor
    """The state."""
    r: Tensor
    """The rate φ(u)."""
    d: Tensor
    """The drive."""
    p: Tensor | None = None
    """The pressure on the rate; None where it is zero. A buffer that may be overwritten."""
    work: Tensor | None = None
    """A buffer for φ(d), of the energies whose rate is the state."""


class Quadratic(NamedTuple):
    """½ w ‖u‖² − v · u: what a quadratic cost adds to a layer."""

    w: Tensor | float = 0.0
    v: Tensor | float = 0.0


_OF = ("value", "rate_phi", "acts_on_drive")
_TERMS = (*_OF, "signal", "state_term", "rate_term")


class LocalEnergy(ClosedForms, ABC):
    """The element-wise terms ε of an energy.

    Methods with an ``out`` return their result: ``out``, or an operand that already is the result.

    Attributes:
        scale: the factor before the sum of the terms.
        feedforward: whether the feed-forward pass, with each layer at ``forward`` of its drive, is
            the free equilibrium, of energy zero and with a weight gradient of zero.
    """

    closed_forms: ClassVar = {
        "signal": _OF,
        "state_term": _OF,
        "rate_term": _OF,
        "stiffness": (*_OF, "signal"),
        "curvature": (*_TERMS, "stiffness"),
        "descend": _TERMS,
        "minimise": _TERMS,
        "project": _TERMS,
        "feedforward": (*_TERMS, "forward"),
        "analytic": (*_TERMS, "stiffness", "curvature"),
    }
    scale = 1.0
    acts_on_drive = False
    """Whether φ acts on the drive, and the rate is the state itself."""
    feedforward = False
    analytic = False
    """Whether the terms take complex u, r and d too, and continue the energy analytically."""
    suits_dense: ClassVar[tuple[str, str]] = ("sigmoid", "sigmoid")
    suits_pictures: ClassVar[tuple[str, str]] = ("sigmoid", "sigmoid")
    """The activations, of hidden layers and output, that train well: of dense layers, and of
    convolutions."""
    own_curvature = 1.0
    """∂²ε/∂u² of a unit by itself: a Newton step divides by no less."""
    reads_out = False
    """Whether the layer is no state of the network, but a function of its drive and the nudge."""

    @abstractmethod
    def value(self, u: Tensor, r: Tensor, d: Tensor, phi: Activation) -> Tensor:
        """ε of each unit, of u's shape, differentiable; ``phi`` is the layer's activation."""

    def forward(self, d: Tensor, phi: Activation) -> Tensor:
        """The state of a layer in a feed-forward pass, differentiable: d, or φ(d)."""
        return phi(d) if self.acts_on_drive else d

    def rate_phi(self, phi: Activation) -> Activation:
        """What makes the rate of the state: φ, or the identity."""
        return ACTIVATIONS["identity"] if self.acts_on_drive else phi

    def domain(self, phi: Activation) -> tuple[float, float]:
        """The interval in which the energy of a unit is finite.

        Raises:
            ValueError: if the energy is not known for this activation.
        """
        return -math.inf, math.inf

    def of_output(self) -> LocalEnergy:
        """The terms of the output layer: the same, unless that one is only read out."""
        return self

    def input_term(self, u: Tensor) -> Tensor | None:
        """What each unit of the input layer adds, of u's shape, differentiable; None: nothing."""
        return None

    def signal(self, s: Site, out: Tensor) -> Tensor:
        """σ = −∂ε/∂d."""
        return self._derivative(s, "d", out).neg_()

    def state_term(self, s: Site, out: Tensor) -> Tensor:
        """∂ε/∂u, the rate held."""
        return self._derivative(s, "u", out)

    def rate_term(self, s: Site, out: Tensor) -> Tensor | None:
        """−∂ε/∂r; None where it is zero for every state."""
        return self._derivative(s, "r", out).neg_()

    def stiffness(self, s: Site) -> Tensor | float:
        """∂²ε/∂d²: a number where it is the same for all units."""
        with torch.enable_grad():
            d = s.d.detach().requires_grad_()
            return _second(self.value(s.u.detach(), s.r.detach(), d, s.phi), d)

    def curvature(
        self, s: Site, p: Tensor, pulled: Tensor, norm: Tensor | float, out: Tensor
    ) -> Tensor:
        """The diagonal of ∂²E/∂u² over ``scale``.

        ``p`` is the pressure, ``pulled`` is φ'(u) ⊙ p, ``norm`` is Σ_e diag(K_eᵀ stiffness K_e).
        """
        slope = self._derivative(s, "r", torch.empty_like(out))
        with torch.enable_grad():
            u = s.u.detach().requires_grad_()
            r = self.rate_phi(s.phi)(u)
            total = self.value(u, r, s.d.detach(), s.phi) - r * (p + slope)
            out.copy_(_second(total, u))
        return out.add_(self.rate_phi(s.phi).slope_(s.u, s.r, slope).square_().mul_(norm))

    def descend(self, s: Site, step: float, work: tuple[Tensor, Tensor]) -> None:
        """Move ``s.u`` by −step · ∂E/∂u; ``work`` are two tensors of its shape."""
        gradient = self.state_term(s, work[1])
        if s.p is not None:
            pulled = self.rate_phi(s.phi).pullback(s.p, s.u, s.r, work[0])
            gradient = torch.sub(gradient, pulled, out=work[1])
        s.u.sub_(gradient, alpha=step * self.scale)

    def minimise(self, s: Site, cost: Quadratic, out: Tensor) -> Tensor:
        """The state that minimises E + cost over this layer, the others held.

        Raises:
            ValueError: if there is no closed form for it.
        """
        raise ValueError(
            f"{type(self).__name__} has no closed form for the minimum of a layer: choose "
            "dynamics=newton or dynamics=euler"
        )

    def project(self, s: Site, nudge: Tensor | Quadratic | None, out: Tensor | None) -> Tensor:
        """The state at which the gradient of E and a nudge vanishes, the other layers held.

        Without ``out`` it is a new tensor, differentiable in what the site holds.

        ``nudge`` is the nudge itself where it is quadratic, else its gradient at the present
        state, which is held. So are the signals of the layers above, where they depend on the
        state: it is one step of a fixed-point iteration.

        Raises:
            ValueError: if there is no closed form for it.
        """
        raise ValueError(
            f"{type(self).__name__} has no closed form for the projected update of a layer: choose "
            "dynamics=newton or dynamics=euler"
        )

    def _derivative(self, s: Site, name: str, out: Tensor) -> Tensor:
        """One partial derivative of ε into ``out``: each term sees its own unit only."""
        with torch.enable_grad():
            leaf = getattr(s, name).detach().requires_grad_()
            u, r, d = (leaf if key == name else getattr(s, key).detach() for key in "urd")
            value = self.value(u, r, d, s.phi)
            if not value.requires_grad:
                return out.zero_()
            (found,) = torch.autograd.grad(value.sum(), leaf, materialize_grads=True)
        return out.copy_(found)


def nudged_at(terms: LocalEnergy, s: Site) -> Tensor:
    """Where the gradient of the cost is taken: at the state, or at the drive where it is none."""
    return s.d if terms.reads_out else s.u


class InputTerms(LocalEnergy):
    """The terms of the input layer, which nothing drives: they matter where it is not clamped."""

    def __init__(self, local: LocalEnergy) -> None:
        self.local = local
        self.scale = local.scale

    def value(self, u: Tensor, r: Tensor, d: Tensor, phi: Activation) -> Tensor:
        found = self.local.input_term(u)
        return torch.zeros_like(u) if found is None else found

    def rate_phi(self, phi: Activation) -> Activation:
        return self.local.rate_phi(phi)


def _second(values: Tensor, leaf: Tensor) -> Tensor:
    """The second derivative of each element of ``values`` by its own element of ``leaf``."""
    zeros = torch.zeros_like(leaf)
    if not values.requires_grad:
        return zeros
    (first,) = torch.autograd.grad(values.sum(), leaf, create_graph=True, materialize_grads=True)
    if not first.requires_grad:
        return zeros
    (second,) = torch.autograd.grad(first.sum(), leaf, allow_unused=True)
    return zeros if second is None else second
