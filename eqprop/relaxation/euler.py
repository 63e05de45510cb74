"""Explicit Euler, synchronous over the layers."""

from __future__ import annotations

from torch import Tensor

from eqprop.energy import EnergyBasedModel
from eqprop.relaxation.base import Init, Solver


class Euler(Solver):
    """``u ← u − (dt/τ) ∂F/∂u`` on every layer that is not clamped, all from the same state.

    Args:
        dt: step size, in units of time.
        tau: time constant τ, in the same units.
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
    ) -> None:
        super().__init__(n_relax, n_nudged, tol, init)
        self.dt = dt
        self.tau = tau

    def step(self, model: EnergyBasedModel, work: list[Tensor | None], measure: bool) -> None:
        if not measure:
            model.descend_(work, self.dt / self.tau)
            return
        model.total_gradient(work)
        for layer, grad in zip(model.u, work, strict=True):
            if grad is not None:
                layer.sub_(grad, alpha=self.dt / self.tau)
