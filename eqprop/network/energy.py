"""The energies whose states are potentials: a handful of element-wise terms (see ``local``)."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from eqprop.network.activation import Activation
from eqprop.network.local import LocalEnergy, Quadratic, Site


class Gaussian(LocalEnergy):
    """E = Σ_l ‖u_l − d_l‖², the conditional Gaussian (predictive coding) energy.

    Source: Whittington & Bogacz (2017), without their factor ½.
    """

    scale = 2.0
    feedforward = analytic = True

    def value(self, u: Tensor, r: Tensor, d: Tensor, phi: Activation) -> Tensor:
        return 0.5 * (u - d).square()

    def signal(self, s: Site, out: Tensor) -> Tensor:
        return torch.sub(s.u, s.d, out=out)

    def state_term(self, s: Site, out: Tensor) -> Tensor:
        return torch.sub(s.u, s.d, out=out)

    def rate_term(self, s: Site, out: Tensor) -> None:
        return None

    def stiffness(self, s: Site) -> float:
        return 1.0

    def curvature(
        self, s: Site, p: Tensor, pulled: Tensor, norm: Tensor | float, out: Tensor
    ) -> Tensor:
        """1 + φ'² ⊙ norm − φ'' ⊙ p."""
        if s.p is None:
            return out.fill_(1.0)
        bend = s.phi.second_pullback(p, pulled, s.u, s.r, out)
        slope = s.phi.slope_(s.u, s.r, p).square_()
        one = _one(out.dtype, out.device)
        return torch.addcmul(one, slope, torch.as_tensor(norm), out=slope).sub_(bend)

    def descend(self, s: Site, step: float, work: tuple[Tensor, Tensor]) -> None:
        to = s.d if s.p is None else s.phi.pullback(s.p, s.u, s.r, s.p).add_(s.d)
        s.u.lerp_(to, step * self.scale)


class Hopfield(LocalEnergy):
    """E = ½ Σ_l ‖u_l‖² − Σ_{l ≥ 1} r_l · d_l, the restricted (layered) Hopfield energy.

    Source: Scellier & Bengio (2017), equation 1.
    """

    analytic = True
    suits_pictures = ("hard_sigmoid", "identity")

    def value(self, u: Tensor, r: Tensor, d: Tensor, phi: Activation) -> Tensor:
        return 0.5 * u.square() - r * d

    def input_term(self, u: Tensor) -> Tensor:
        return 0.5 * u.square()

    def signal(self, s: Site, out: Tensor) -> Tensor:
        return s.r

    def state_term(self, s: Site, out: Tensor) -> Tensor:
        return s.u

    def rate_term(self, s: Site, out: Tensor) -> Tensor:
        return s.d

    def stiffness(self, s: Site) -> float:
        return 0.0

    def curvature(
        self, s: Site, p: Tensor, pulled: Tensor, norm: Tensor | float, out: Tensor
    ) -> Tensor:
        """1 − φ'' ⊙ p, with p = d + feedback."""
        bend = s.phi.second_pullback(p, pulled, s.u, s.r, out)
        return torch.sub(_one(out.dtype, out.device), bend, out=out)

    def descend(self, s: Site, step: float, work: tuple[Tensor, Tensor]) -> None:
        assert s.p is not None  # the drive at least
        out = work[0] if s.p is s.d else s.p  # in place, one pass through memory less
        s.u.lerp_(s.phi.pullback(s.p, s.u, s.r, out), step * self.scale)

    def minimise(self, s: Site, cost: Quadratic, out: Tensor) -> Tensor:
        """Of the pieces of φ: on one, E + cost is ½ (1 + w) u² − (slope · p + v) u."""
        if not s.phi.pieces:
            raise ValueError(
                "dynamics=exact needs a piecewise linear activation (identity, relu, relu6, "
                f"leaky_relu, hard_sigmoid, half_hard_sigmoid), not {s.phi.name}"
            )
        total = s.d if s.p is None else s.p
        if s.phi.is_identity:
            return out.copy_(nudged_minimum(total, cost, self.scale, out))
        if s.phi.unit_slopes and not isinstance(cost.v, Tensor):  # 0 lies in the range of all
            return s.phi.value_(total, out)
        stiffness = torch.as_tensor(1.0 + cost.w / self.scale)
        least = torch.full_like(total, math.inf)
        for low, high, slope, intercept in s.phi.pieces:
            force = total * slope + cost.v / self.scale
            at = (force / stiffness).clamp_(low, high)
            value = 0.5 * stiffness * at * at - force * at - intercept * total
            torch.where(value < least, at, out, out=out)
            torch.minimum(least, value, out=least)
        return out

    def project(self, s: Site, nudge: Tensor | Quadratic | None, out: Tensor | None) -> Tensor:
        """φ(p), the nudge's gradient taken off p, where φ is a projection."""
        if not s.phi.unit_slopes:
            raise ValueError(
                "dynamics.rule=projected: the Hopfield energy needs an activation that is a "
                f"projection (identity, relu, hard_sigmoid, relu6), not {s.phi.name}; choose "
                "dynamics.rule=newton"
            )
        total = nudged_minimum(s.d if s.p is None else s.p, nudge, self.scale, out)
        return rate_into(s.phi, total, out)


def nudged_minimum(
    total: Tensor, nudge: Tensor | Quadratic | None, scale: float, out: Tensor | None
) -> Tensor:
    """Where u − ``total``, and the gradient of a nudge over ``scale``, add up to zero."""
    if nudge is None:
        return total
    if isinstance(nudge, Tensor):
        return torch.sub(total, nudge, alpha=1.0 / scale, out=out)
    pulled = total + nudge.v / scale
    return torch.div(pulled, torch.as_tensor(1.0 + nudge.w / scale), out=out)


def rate_into(phi: Activation, u: Tensor, out: Tensor | None) -> Tensor:
    """φ(u), in ``out`` if there is one."""
    return phi(u) if out is None else phi.value_(u, out)


@lru_cache
def _one(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.ones((), dtype=dtype, device=device)
