"""The restricted (layered) Hopfield energy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from eqprop.connection import Op
from eqprop.cost import SquaredError
from eqprop.energy.layered import LayeredEnergy, kink_ops, replay


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

    def _attractor_ops(self, u: Sequence[Tensor], out: Sequence[Tensor | None]) -> list[Op]:
        """φ'(u[l]) ⊙ (W[l-1] r[l-1] + b[l-1] + W[l]ᵀ r[l+1]), what u[l] moves to, into ``out``."""
        r, drive = self.rate_views(u), self.buffers_of("drive")
        ops = self.rate_ops(u, r)
        for i, target in enumerate(out):
            if target is None:
                continue
            ops += self.drive_op(i, r, drive)
            ops += self._total_ops(i, r, drive, target)
            total = target if i < self.n_layers - 1 else drive[i]
            ops.append(partial(self.phi[i].pullback, total, u[i], r[i], target))
        return ops

    def _total_ops(
        self, i: int, r: Sequence[Tensor], drive: Sequence[Tensor], out: Tensor
    ) -> list[Op]:
        """The drive of layer i plus the feedback of the layer above it, if there is one."""
        if i == self.n_layers - 1:
            return []
        return [self.connection(i).transpose_op(r[i + 1], out, drive[i] if i else None)]

    @torch.no_grad()
    def state_gradient(self, u: Sequence[Tensor], out: Sequence[Tensor | None]) -> None:
        """u[l] − φ'(u[l]) ⊙ (W[l-1] r[l-1] + b[l-1] + W[l]ᵀ r[l+1])."""
        self.constants(u)
        replay(self._attractor_ops(u, out))
        for i, grad in enumerate(out):
            if grad is not None:
                torch.sub(u[i], grad, out=grad)

    @torch.no_grad()
    def descent_ops(self, step: float) -> list[Op]:
        self.constants(self._u)
        u, work = self._u, self.free_layers("gradient")
        ops = self._attractor_ops(u, work)
        compute_nudge, apply_nudge = self.nudge_descent(step)
        ops += compute_nudge
        ops += [partial(u[i].lerp_, to, step) for i, to in enumerate(work) if to is not None]
        return ops + apply_nudge

    def layer_ops(self, i: int, grad: Tensor, curvature: Tensor) -> list[Op]:
        """u − φ'(u) ⊙ a and 1 − φ''(u) ⊙ a, a the total drive; with the cost's at i = L."""
        u, phi = self._u[i], self.phi[i]
        r = self.rate_views(self._u)
        drive, total = self.buffers_of("drive"), self.buffers_of("total")[i]
        a = drive[i] if i == self.n_layers - 1 else total
        ops = self.drive_op(i, r, drive) + self._total_ops(i, r, drive, total)
        ops.append(partial(phi.pullback, a, u, r[i], grad))
        ops.append(partial(phi.second_pullback, a, grad, u, r[i], curvature))
        finish: list[Op] = [
            partial(torch.sub, u, grad, out=grad),
            partial(torch.sub, curvature.new_ones(()), curvature, out=curvature),
            *self.nudge_ops(i, grad, curvature),
        ]
        return ops + kink_ops(phi, grad, u, self.buffers_of("kink")[i], finish)

    @torch.no_grad()
    def minimise_layer_(self, i: int, share: float = 1.0) -> None:
        """argmin over u of ½ u² − φ(u) a + β C, for φ piecewise linear and C quadratic or none.

        On a piece φ(u) = s u + c it is ½ (1 + w) u² − (s a + p) u − c a, with w and p the cost's.
        """
        r, drive = self.rate_views(self._u), self.buffers_of("drive")
        total = drive[i] if i == self.n_layers - 1 else self.buffers_of("total")[i]
        replay(self.drive_op(i, r, drive) + self._total_ops(i, r, drive, total))
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
        self._u[i].lerp_(best, share)

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
