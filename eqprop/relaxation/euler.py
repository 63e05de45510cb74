"""Explicit Euler, synchronous over the layers."""

from __future__ import annotations

import torch
from torch import Tensor

from eqprop.connection import Op
from eqprop.energy import EnergyBasedModel
from eqprop.relaxation.base import Init
from eqprop.relaxation.loops import Move
from eqprop.relaxation.replay import ReplayedSolver

SHRINK, GROW = 0.5, 1.1
ROUNDING = 8.0  # an energy rises only by more than this many of its own last digits


class Euler(ReplayedSolver):
    """``u ← u − (dt/τ) ∂F/∂u`` on every layer that is not clamped, all from the same state.

    Args:
        dt: step size, in units of time.
        tau: time constant τ, in the same units.
        adaptive: take back the step of each sample whose energy rose, and halve that sample's
            step size; it grows back, up to dt, while the energy falls.
        n_relax: see :class:`Solver`, as are the rest.
    """

    def __init__(
        self,
        dt: float = 0.1,
        tau: float = 1.0,
        n_relax: int = 20,
        n_nudged: int | None = None,
        tol: float = 0.0,
        init: Init = "auto",
        adaptive: bool = False,
    ) -> None:
        super().__init__(n_relax, n_nudged, tol, init, dt, tau)
        self.adaptive = adaptive
        self._size = self._energy = torch.empty(0)  # (batch,): each sample's step, and its energy

    def begin(self, model: EnergyBasedModel) -> None:
        super().begin(model)
        if self.adaptive:
            self._energy = model.E
            self._size = torch.full_like(self._energy, self.dt / self.tau)

    def plan(self, model: EnergyBasedModel) -> list[Op]:
        return model.descent_ops(self.dt / self.tau)

    def move(self) -> Move | None:
        return None if self.adaptive else Move(newton=False, step=self.dt / self.tau)

    def advance(self, model: EnergyBasedModel, work: list[Tensor | None], n_steps: int) -> None:
        if not self.adaptive:
            super().advance(model, work, n_steps)
            return
        for _ in range(n_steps):
            self.step(model, work, measure=True)

    def step(self, model: EnergyBasedModel, work: list[Tensor | None], measure: bool) -> None:
        if not (measure or self.adaptive):
            super().step(model, work, measure)
            return
        model.total_gradient(work)
        if self.adaptive:
            self._careful_step(model, work)
            return
        for layer, grad in zip(model.u, work, strict=True):
            if grad is not None:
                layer.sub_(grad, alpha=self.dt / self.tau)

    def _careful_step(self, model: EnergyBasedModel, work: list[Tensor | None]) -> None:
        old = model.snapshot("old")
        for layer, grad in zip(model.u, work, strict=True):
            if grad is not None:
                layer.addcmul_(grad, _a_sample(self._size, layer), value=-1.0)
        energy = model.E
        slack = ROUNDING * torch.finfo(energy.dtype).eps * self._energy.abs().clamp_min(1.0)
        rose = ~(energy <= self._energy + slack)  # a NaN has risen too
        for layer, before, grad in zip(model.u, old, work, strict=True):
            if grad is not None:
                layer.copy_(torch.where(_a_sample(rose, layer), before, layer))
        self._energy = torch.where(rose, self._energy, energy)
        self._size *= torch.where(rose, SHRINK, GROW)
        self._size.clamp_(max=self.dt / self.tau)


def _a_sample(values: Tensor, layer: Tensor) -> Tensor:
    """``values`` (batch,) in a shape that scales each sample of ``layer``."""
    return values.view(-1, *[1] * (layer.dim() - 1))
