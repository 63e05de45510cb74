"""The energies whose states are rates: φ acts on the drive (see ``local``)."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import Doc

from eqprop.network.activation import ACTIVATIONS, Activation
from eqprop.network.energy import nudged_minimum, rate_into
from eqprop.network.local import LocalEnergy, Quadratic, Site


class PredictiveCoding(LocalEnergy):
    """E = ½ Σ_l ‖u_l − φ_l(d_l)‖², predictive coding with the rate as state.

    Source: Kerjan, Høier & Scellier (2026); β of :class:`Gaussian` is twice β of this one.
    """

    acts_on_drive = True
    feedforward = analytic = True
    suits_dense = suits_pictures = ("relu", "identity")

    def value(self, u: Tensor, r: Tensor, d: Tensor, phi: Activation) -> Tensor:
        return 0.5 * (u - phi(d)).square()

    def signal(self, s: Site, out: Tensor) -> Tensor:
        """φ'(d) ⊙ (u − φ(d))."""
        assert s.work is not None
        predicted = s.phi.value_(s.d, s.work)
        return s.phi.pullback(torch.sub(s.u, predicted, out=out), s.d, predicted, out)

    def state_term(self, s: Site, out: Tensor) -> Tensor:
        return torch.sub(s.u, s.phi.value_(s.d, out), out=out)

    def rate_term(self, s: Site, out: Tensor) -> None:
        return None

    def stiffness(self, s: Site) -> Tensor:
        """φ'(d)² − φ''(d) ⊙ (u − φ(d))."""
        predicted = s.phi.value_(s.d, torch.empty_like(s.d))
        error, out = s.u - predicted, torch.empty_like(s.d)
        pulled = s.phi.pullback(error, s.d, predicted, torch.empty_like(s.d))
        bend = s.phi.second_pullback(error, pulled, s.d, predicted, torch.empty_like(s.d))
        return s.phi.slope_(s.d, predicted, out).square().sub_(bend)

    def curvature(
        self, s: Site, p: Tensor, pulled: Tensor, norm: Tensor | float, out: Tensor
    ) -> Tensor:
        """1 + norm."""
        return out.fill_(1.0).add_(norm)

    def project(self, s: Site, nudge: Tensor | Quadratic | None, out: Tensor | None) -> Tensor:
        """φ(d) + f; the projection φ(d + f) where φ is one, so that u stays in range.

        Both leave the signal that they should, since φ' is then 0 or 1.
        """
        inside = s.phi.unit_slopes
        total = s.d if inside else rate_into(s.phi, s.d, out)
        if s.p is not None:
            total = torch.add(total, s.p, out=out)
        total = nudged_minimum(total, nudge, self.scale, out)
        return rate_into(s.phi, total, out) if inside else total


class Readout(PredictiveCoding):
    """The terms of an output that is no state: the nudge acts on the layers that it reads.

    With u = d − β ∂C/∂u(d) the layer sends back the signal −β ∂C/∂u(d), and none in a free phase:
    all as if F were the energy of the other layers and β C(d).
    """

    reads_out = True

    def domain(self, phi: Activation) -> tuple[float, float]:
        if not phi.is_identity:
            raise ValueError(
                f"model.readout=true: what is read out is linear; choose "
                f"model.output_activation=identity, not {phi.name}"
            )
        return super().domain(phi)

    def project(self, s: Site, nudge: Tensor | Quadratic | None, out: Tensor | None) -> Tensor:
        """d, the nudge's gradient at d taken off."""
        if isinstance(nudge, Quadratic):
            nudge = s.d * nudge.w - nudge.v
        return super().project(s, nudge, out)


class RateHopfield(LocalEnergy):
    """E = Σ_{l ≥ 1} Σ G_l(u_l) − u_l · d_l with G' = φ⁻¹: at equilibrium, u = φ(d + feedback).

    What most published code calls a Hopfield network. Its equilibria are those of
    :class:`Hopfield` where φ is a projection (relu, hard_sigmoid, relu6, identity).
    Source: Hopfield (1984), equation 5.

    Args:
        readout: the output is d itself, no state, and sends nothing back but the nudge: with
            ``cost=cross_entropy`` a softmax on the last state (Laborieux et al. 2021).
    """

    acts_on_drive = analytic = True
    suits_dense = suits_pictures = ("hard_sigmoid", "identity")

    def __init__(
        self,
        readout: Annotated[
            bool, Doc("the output is no state, but reads the layer below; only a nudge acts back")
        ] = False,
    ) -> None:
        self.readout = readout

    def of_output(self) -> LocalEnergy:
        if not self.readout:
            return self
        read = Readout()
        read.scale = self.scale
        return read

    def value(self, u: Tensor, r: Tensor, d: Tensor, phi: Activation) -> Tensor:
        return phi.primitive(u) - r * d

    def domain(self, phi: Activation) -> tuple[float, float]:
        try:
            phi.primitive(torch.zeros(1))
        except ValueError as error:
            known = ", ".join(name for name in ACTIVATIONS if name != "softplus")
            raise ValueError(
                f"model.activation={phi.name}: its energy needs the inverse of the activation in "
                f"closed form; choose one of {known}"
            ) from error
        return phi.range

    def signal(self, s: Site, out: Tensor) -> Tensor:
        return s.u

    def state_term(self, s: Site, out: Tensor) -> Tensor:
        return out.copy_(s.phi.inverse(s.u))

    def rate_term(self, s: Site, out: Tensor) -> Tensor:
        return s.d

    def stiffness(self, s: Site) -> float:
        return 0.0

    def curvature(
        self, s: Site, p: Tensor, pulled: Tensor, norm: Tensor | float, out: Tensor
    ) -> Tensor:
        """The slope of the chord from u to φ(p), where ∂E/∂u vanishes: no step overshoots.

        The tangent's, 1 / φ'(φ⁻¹(u)), would: it is steepest at the ends of the range. It counts
        where u is at φ(p) already, and where φ is piecewise linear.
        """
        if s.phi.is_identity:
            return out.fill_(1.0)
        if s.phi.pieces:
            return super().curvature(s, p, pulled, norm, out)
        v = s.phi.inverse(s.u)
        r = s.phi(v)
        tangent, gap = s.phi.slope_(v, r, out).reciprocal_(), r - s.phi(p)
        near = gap.abs() <= math.sqrt(torch.finfo(gap.dtype).eps)
        return torch.where(near, tangent, (v - p) / gap, out=out)

    def minimise(self, s: Site, cost: Quadratic, out: Tensor) -> Tensor:
        """φ(p + v), or φ((p + v) / (1 + w)) where φ is a projection."""
        total = s.d if s.p is None else s.p
        curved = isinstance(cost.w, Tensor) or cost.w != 0.0
        if isinstance(cost.v, Tensor) or curved:
            if curved and not s.phi.unit_slopes:
                raise ValueError(
                    "dynamics=exact: the layer that is nudged needs an activation that is a "
                    f"projection (identity, relu, hard_sigmoid, relu6), not {s.phi.name}; choose "
                    "model.output_activation=identity or dynamics=sweep dynamics.rule=projected"
                )
            total = nudged_minimum(total, cost, self.scale, out)
        return s.phi.value_(total, out)

    def project(self, s: Site, nudge: Tensor | Quadratic | None, out: Tensor | None) -> Tensor:
        """φ(p), the nudge's gradient taken off p; with a projection φ, where F is least."""
        if isinstance(nudge, Quadratic) and not s.phi.unit_slopes:
            nudge = s.u * nudge.w - nudge.v
        total = nudged_minimum(s.d if s.p is None else s.p, nudge, self.scale, out)
        return rate_into(s.phi, total, out)
