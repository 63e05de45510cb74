"""The restricted (layered) Hopfield energy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

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
        nudge = self._nudge()
        for layer, target in zip(self._u, work, strict=True):
            if target is not None:
                layer.lerp_(target, step)
        if nudge is not None:
            self._u[-1].sub_(nudge, alpha=step)
