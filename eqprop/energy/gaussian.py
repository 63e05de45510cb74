"""The conditional Gaussian (predictive coding) energy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eqprop.energy.layered import LayeredEnergy


class ConditionalGaussian(LayeredEnergy):
    """E = Σ_l ‖e_l‖², e_l = u[l] − W[l-1] r[l-1] − b[l-1], for l = 1 … L.

    Source: Whittington & Bogacz (2017), in the factor convention of DESIGN §2 (no ½).
    """

    has_feedforward = True
    own_curvature = 2.0

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
                self.connection(level).forward_(rate, drive[level + 1])
            if not self.clamp_du[level + 1]:
                u[level + 1].copy_(drive[level + 1])

    def posts(self, u: Sequence[Tensor], r: Sequence[Tensor], name: str) -> Sequence[Tensor]:
        """2 e_l."""
        drive, out = self.drives(u, r), self.buffers_of(name)
        for i in range(1, self.n_layers):
            torch.sub(u[i], drive[i], out=out[i]).mul_(2.0)
        return out

    def _feedback(self, u: Sequence[Tensor], out: Sequence[Tensor | None]) -> list[Tensor]:
        """Write φ'(u[l]) ⊙ W[l]ᵀ e_{l+1} into ``out`` for l < L; returns the drives."""
        r = self.rates(u)
        drive, e = self.drives(u, r), self.buffers_of("e")
        for i, back in enumerate(out[:-1]):
            if back is not None:
                torch.sub(u[i + 1], drive[i + 1], out=e[i + 1])
                self.connection(i).transpose_(e[i + 1], back)
                self.phi[i].pullback(back, u[i], r[i], back)
        return drive

    @torch.no_grad()
    def state_gradient(self, u: Sequence[Tensor], out: Sequence[Tensor | None]) -> None:
        """2 e_l − 2 φ'(u[l]) ⊙ W[l]ᵀ e_{l+1}, the second term absent at l = L."""
        drive = self._feedback(u, out)
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
    def descend_(self, work: Sequence[Tensor | None], step: float) -> None:
        u = self._u
        drive = self._feedback(u, work)
        nudge = self.nudge()
        for i, back in enumerate(work):
            if back is None:
                continue
            if i > 0:  # u − 2 step (u − drive)
                u[i].lerp_(drive[i], 2.0 * step)
            if i < self.n_layers - 1:
                u[i].add_(back, alpha=2.0 * step)
            elif nudge is not None:
                u[i].sub_(nudge, alpha=step)

    def begin_sweeps(self) -> None:
        super().begin_sweeps()
        self._stiffness = [
            torch.linalg.vector_norm(self.connection(i).weight, dim=0).square()
            for i in range(self.n_layers - 1)
        ]

    @torch.no_grad()
    def layer_derivatives_(self, i: int, grad: Tensor, curvature: Tensor) -> None:
        """2 e − 2 φ' ⊙ Wᵀe₊ and 2 + 2 φ'² ⊙ diag(WᵀW) − 2 φ'' ⊙ Wᵀe₊, e₊ the next layer's."""
        u, r, phi = self._u[i], self.rate(i), self.phi[i]
        if i < self.n_layers - 1:
            e = torch.sub(self._u[i + 1], self.drive(i + 1), out=self.buffers_of("e")[i + 1])
            back = self.connection(i).transpose_(e, self.buffers_of("total")[i])
            slope = phi.pullback(self._ones(i), u, r, self.buffers_of("slope")[i])
            pulled = torch.mul(back, slope, out=grad)
            phi.second_pullback(back, pulled, u, r, curvature)
            slope.square_().mul_(self._stiffness[i])
            torch.sub(slope, curvature, out=curvature)
            kept = pulled.clone() if phi.pieces else pulled
            grad.neg_()
        else:
            kept = grad.zero_()
            curvature.zero_()
        if i > 0:
            grad.add_(u).sub_(self.drive(i))
            curvature.add_(1.0)
        phi.at_kinks_(grad, kept, u)
        grad.mul_(2.0)
        curvature.mul_(2.0)
        self.add_nudge(i, grad, curvature)

    def _ones(self, i: int) -> Tensor:
        return self.buffers_of("ones")[i].fill_(1.0)
