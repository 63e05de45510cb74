"""The conditional Gaussian (predictive coding) energy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from eqprop.connection import Op
from eqprop.energy.layered import LayeredEnergy, kink_ops, replay


class ConditionalGaussian(LayeredEnergy):
    """E = Σ_l ‖e_l‖², e_l = u[l] − W[l-1] r[l-1] − b[l-1], for l = 1 … L.

    Source: Whittington & Bogacz (2017), in the factor convention of DESIGN §2 (no ½).
    """

    has_feedforward = True
    own_curvature = 2.0
    post_factor = 2.0

    def energy(self, u: Sequence[Tensor]) -> Tensor:
        """E(u) per sample (batch,)."""
        _, drive = self.rates_and_drives(u)
        errors = [(u[i] - drive[i]).square().sum(1) for i in range(1, self.n_layers)]
        return torch.stack(errors).sum(0)

    @torch.no_grad()
    def fast_init(self) -> None:
        """The feed-forward pass: every e_l = 0, so that E = 0 and so is its gradient."""
        u, r, drive = self._u, self.buffers_of("r"), self.buffers_of("drive")
        for level in range(self.n_layers - 1):
            rate = self.phi[level].value_(u[level], r[level])
            if not self._is_kept(level, u[level], drive[level + 1]):
                self.connection(level).forward_op(rate, drive[level + 1])()
            if not self.clamp_du[level + 1]:
                u[level + 1].copy_(drive[level + 1])

    def posts(self, u: Sequence[Tensor], r: Sequence[Tensor], name: str) -> Sequence[Tensor]:
        """e_l, half of the factor."""
        drive, out = self.drives(u, r), self.buffers_of(name)
        for i in range(1, self.n_layers):
            torch.sub(u[i], drive[i], out=out[i])
        return out

    def _feedback_ops(self, u: Sequence[Tensor], out: Sequence[Tensor | None]) -> list[Op]:
        """φ'(u[l]) ⊙ W[l]ᵀ e_{l+1} into ``out`` for l < L, and the drives of all free layers."""
        r, drive = self.rate_views(u), self.buffers_of("drive")
        e, ops = self.buffers_of("e"), self.rate_ops(u[:-1], r)
        for i in range(1, self.n_layers):
            if out[i] is not None or out[i - 1] is not None:
                ops += self.drive_op(i, r, drive)
        for i, back in enumerate(out[:-1]):
            if back is not None:
                ops.append(partial(torch.sub, u[i + 1], drive[i + 1], out=e[i + 1]))
                ops.append(self.connection(i).transpose_op(e[i + 1], back))
                ops.append(partial(self.phi[i].pullback, back, u[i], r[i], back))
        return ops

    @torch.no_grad()
    def state_gradient(self, u: Sequence[Tensor], out: Sequence[Tensor | None]) -> None:
        """2 e_l − 2 φ'(u[l]) ⊙ W[l]ᵀ e_{l+1}, the second term absent at l = L."""
        self.constants(u)
        replay(self._feedback_ops(u, out))
        drive = self.buffers_of("drive")
        for i, grad in enumerate(out):
            if grad is None:
                continue
            if i == self.n_layers - 1:
                torch.sub(u[i], drive[i], out=grad).mul_(2.0)
            elif i == 0:
                grad.mul_(-2.0)
            else:  # back + drive − u = −½ of the gradient
                grad.add_(drive[i]).sub_(u[i]).mul_(-2.0)

    @torch.no_grad()
    def descent_ops(self, step: float) -> list[Op]:
        self.constants(self._u)
        u, work = self._u, self.free_layers("gradient")
        ops, drive = self._feedback_ops(u, work), self.buffers_of("drive")
        compute_nudge, apply_nudge = self.nudge_descent(step)
        ops += compute_nudge
        for i, back in enumerate(work):
            if back is None:
                continue
            if i > 0:  # u − 2 step (u − drive)
                ops.append(partial(u[i].lerp_, drive[i], 2.0 * step))
            if i < self.n_layers - 1:
                ops.append(partial(u[i].add_, back, alpha=2.0 * step))
        return ops + apply_nudge

    @torch.no_grad()
    def begin_sweeps(self) -> None:
        super().begin_sweeps()
        self._stiffness = {
            i: self.connection(i).weight.square().sum(0)
            for i in range(self.n_layers - 1)
            if not self.clamp_du[i]
        }
        for ones in self.buffers_of("ones"):
            ones.fill_(1.0)

    def layer_ops(self, i: int, grad: Tensor, curvature: Tensor) -> list[Op]:
        """2 e − 2 φ' ⊙ Wᵀe₊ and 2 + 2 φ'² ⊙ diag(WᵀW) − 2 φ'' ⊙ Wᵀe₊, e₊ the next layer's."""
        u, phi = self._u, self.phi[i]
        r, drive = self.rate_views(u), self.buffers_of("drive")
        finish = [partial(torch.sub, u[i], grad, out=grad), partial(grad.sub_, drive[i])]
        ops = self.drive_op(i, r, drive)
        if i == self.n_layers - 1:
            ops += [partial(torch.sub, u[i], drive[i], out=grad), partial(curvature.fill_, 1.0)]
        else:
            ops += self._pull_ops(i, u, r, drive, grad, curvature)
            ops += kink_ops(
                phi, grad, u[i], self.buffers_of("kink")[i], finish if i else [grad.neg_]
            )
            ops += [partial(curvature.add_, 1.0)] if i else []
        ops += [partial(grad.mul_, 2.0), partial(curvature.mul_, 2.0)]
        return ops + self.nudge_ops(i, grad, curvature)

    def _pull_ops(
        self,
        i: int,
        u: Sequence[Tensor],
        r: Sequence[Tensor],
        drive: Sequence[Tensor],
        pulled: Tensor,
        curvature: Tensor,
    ) -> list[Op]:
        """φ' ⊙ Wᵀe₊ into ``pulled``, φ'² ⊙ diag(WᵀW) − φ'' ⊙ Wᵀe₊ into ``curvature``."""
        phi, e = self.phi[i], self.buffers_of("e")[i + 1]
        back, slope, ones = (self.buffers_of(name)[i] for name in ("total", "slope", "ones"))
        return [
            *self.drive_op(i + 1, r, drive),
            partial(torch.sub, u[i + 1], drive[i + 1], out=e),
            self.connection(i).transpose_op(e, back),
            partial(phi.pullback, ones, u[i], r[i], slope),
            partial(torch.mul, back, slope, out=pulled),
            partial(phi.second_pullback, back, pulled, u[i], r[i], curvature),
            slope.square_,
            partial(slope.mul_, self._stiffness[i]),
            partial(torch.sub, slope, curvature, out=curvature),
        ]
