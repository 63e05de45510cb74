"""The restricted (layered) Hopfield energy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from eqprop.cost import SquaredError
from eqprop.energy.layered import LayeredEnergy


class RestrictedHopfield(LayeredEnergy):
    """E = ½ Σ_{l≥0} ‖u[l]‖² − Σ_{l≥1} r[l]ᵀ (W[l-1] r[l-1] + b[l-1]).

    Source: Scellier & Bengio (2017), equation 1, restricted to neighbouring layers.
    """

    def energy(self, u: Sequence[Tensor]) -> Tensor:
        """E(u) per sample (batch,)."""
        r, drive = self.rates_and_drives(u)
        own = torch.stack([layer.square().sum(1) for layer in u]).sum(0)
        joint = torch.stack([(r[i] * drive[i]).sum(1) for i in range(1, self.n_layers)]).sum(0)
        return 0.5 * own - joint

    def posts(self, u: Sequence[Tensor], r: Sequence[Tensor], name: str) -> Sequence[Tensor]:
        """r[l]."""
        return r

    def _attractors(self, u: Sequence[Tensor], out: Sequence[Tensor | None]) -> None:
        """Write φ'(u[l]) ⊙ (W[l-1] r[l-1] + b[l-1] + W[l]ᵀ r[l+1]), what u[l] moves to."""
        r = self.rates(u)
        drive = self.drives(u, r)
        for i, target in enumerate(out):
            if target is None:
                continue
            total = drive[i]
            if i < self.n_layers - 1:
                total = self.connection(i).transpose_(r[i + 1], target, drive[i] if i else None)
            self.phi[i].pullback(total, u[i], r[i], target)

    @torch.no_grad()
    def state_gradient(self, u: Sequence[Tensor], out: Sequence[Tensor | None]) -> None:
        """u[l] − φ'(u[l]) ⊙ (W[l-1] r[l-1] + b[l-1] + W[l]ᵀ r[l+1])."""
        self._attractors(u, out)
        for i, grad in enumerate(out):
            if grad is not None:
                torch.sub(u[i], grad, out=grad)

    @torch.no_grad()
    def descend_(self, work: Sequence[Tensor | None], step: float) -> None:
        self._attractors(self._u, work)
        nudge = self.nudge()
        for layer, target in zip(self._u, work, strict=True):
            if target is not None:
                layer.lerp_(target, step)
        if nudge is not None:
            self._u[-1].sub_(nudge, alpha=step)

    def _total_drive(self, i: int) -> Tensor:
        """W[i-1] r[i-1] + b[i-1] + W[i]ᵀ r[i+1], what layer ``i`` is driven by, in a buffer."""
        if i == self.n_layers - 1:
            return self.drive(i)
        below = self.drive(i) if i else None
        return self.connection(i).transpose_(self.rate(i + 1), self.buffers_of("total")[i], below)

    @torch.no_grad()
    def layer_derivatives_(self, i: int, grad: Tensor, curvature: Tensor) -> None:
        """u − φ'(u) ⊙ a and 1 − φ''(u) ⊙ a, a the total drive; with the cost's at i = L."""
        u, r, phi = self._u[i], self.rate(i), self.phi[i]
        total = self._total_drive(i)
        pulled = phi.pullback(total, u, r, grad)
        phi.second_pullback(total, pulled, u, r, curvature)
        kept = pulled.clone() if phi.pieces else pulled
        torch.sub(u, pulled, out=grad)
        phi.at_kinks_(grad, kept, u)
        curvature.neg_().add_(1.0)
        self.add_nudge(i, grad, curvature)

    @torch.no_grad()
    def minimise_layer_(self, i: int) -> None:
        """argmin over u of ½ u² − φ(u) a + β C, for φ piecewise linear and C quadratic or none.

        On a piece φ(u) = s u + c it is ½ (1 + w) u² − (s a + p) u − c a, with w and p the cost's.
        """
        total = self._total_drive(i)
        stiffness, pull = self._quadratic_cost(i)
        buffers = self.buffers_of
        at, value, better = buffers("at")[i], buffers("value")[i], buffers("better")[i]
        best, least = buffers("best")[i], buffers("least")[i].fill_(math.inf)
        for low, high, slope, intercept in self.phi[i].pieces:
            torch.mul(total, slope, out=value)
            if pull is not None:
                value.add_(pull)
            torch.div(value, stiffness, out=at).clamp_(low, high)
            value.mul_(at).neg_().addcmul_(at, at, value=0.5 * stiffness)
            value.sub_(total, alpha=intercept)
            torch.lt(value, least, out=better)
            best.lerp_(at, better)
            torch.minimum(least, value, out=least)
        self._u[i].copy_(best)

    def _quadratic_cost(self, i: int) -> tuple[float, Tensor | None]:
        """1 + β and β y at a nudged output, 1 and None elsewhere.

        Raises:
            NotImplementedError: if φ or the cost has no closed form, or 1 + β ≤ 0.
        """
        if not self.phi[i].pieces:
            raise NotImplementedError(
                f"dynamics=exact needs a piecewise linear activation, not {self.phi[i].name}"
            )
        cost = self.c_energy
        if i < self.n_layers - 1 or cost.target is None:
            return 1.0, None
        if not isinstance(cost, SquaredError) or cost.beta <= -1.0:
            raise NotImplementedError("dynamics=exact needs cost=mse and estimator.beta > -1")
        pull = torch.mul(cost.target_for(self._u[i]), cost.beta, out=self.buffers_of("pull")[i])
        return 1.0 + cost.beta, pull
