"""The verbs that users of energy-based models already know, on top of what ``base`` provides."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from eqprop.connection import Op
from eqprop.cost import CEnergy
from eqprop.energy.state import State


class PublicNames(nn.Module):
    """Targets, Euler steps and gradients by their published names; the base of every energy."""

    c_energy: CEnergy

    if TYPE_CHECKING:  # what EnergyBasedModel provides

        @property
        def E(self) -> Tensor: ...
        @property
        def u(self) -> State: ...
        def free_layers(self, name: str) -> list[Tensor | None]: ...
        def total_gradient(self, out: Sequence[Tensor | None]) -> None: ...
        def residual(self, grad: Sequence[Tensor | None]) -> Tensor: ...
        def descent_ops(self, step: float) -> list[Op]: ...
        def holding_weights(self) -> AbstractContextManager[None]: ...
        def weight_gradient(self, u: Sequence[Tensor]) -> list[Tensor]: ...
        def parameter_gradient(self, loss: Tensor) -> list[Tensor]: ...

    def update_energy(self) -> None:
        """Nothing: ``E`` is computed when it is read, and so is always up to date."""

    def set_C_target(self, target: Tensor | None) -> None:
        """Nudge towards ``target``, one-hot (batch, n_out); None ends the nudging."""
        self.c_energy.set_target(target)

    @torch.no_grad()
    def u_step(self, dt: float, tau: float) -> float:
        """One Euler step; returns the residual of the gradient that it followed."""
        return self._euler_step(dt / tau)

    def _euler_step(self, step: float) -> float:
        grad = self.free_layers("gradient")
        self.total_gradient(grad)
        for layer, g in zip(self.u, grad, strict=True):
            if g is not None:
                layer.sub_(g, alpha=step)
        return float(self.residual(grad))

    @torch.no_grad()
    def u_relax(self, dt: float, n_relax: int, tol: float, tau: float) -> float:
        """Up to ``n_relax`` Euler steps, until a residual < ``tol``; returns Σ_batch ΔF."""
        with self.holding_weights():
            before = self.E.sum()
            if tol <= 0:
                ops = self.descent_ops(dt / tau)
                for op in itertools.chain.from_iterable(itertools.repeat(ops, n_relax)):
                    op()
            else:
                for _ in range(n_relax):
                    if self._euler_step(dt / tau) < tol:
                        break
            return float(self.E.sum() - before)

    def w_get_gradients(self, loss: Tensor | None = None) -> list[Tensor]:
        """∂loss/∂θ in ``parameters()`` order; without a loss, of the batch-mean energy."""
        if loss is None:
            return self.weight_gradient(self.u)
        return self.parameter_gradient(loss)

    def w_optimize(
        self,
        free_grad: Sequence[Tensor],
        nudged_grad: Sequence[Tensor],
        w_optimizer: torch.optim.Optimizer,
    ) -> None:
        """One optimizer step along the contrastive update (1/β)(nudged − free)."""
        for parameter, free, nudged in zip(self.parameters(), free_grad, nudged_grad, strict=True):
            parameter.grad = (nudged - free) / self.c_energy.beta
        w_optimizer.step()
