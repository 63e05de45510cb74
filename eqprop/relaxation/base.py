"""The seam for solvers: how a phase starts, the stopping rule, and the result."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from eqprop.energy import EnergyBasedModel
from eqprop.relaxation.result import Relaxation, StopReason
from eqprop.run.errors import ConfigError

Init = Literal["auto", "normal", "zeros", "feedforward"]


class Solver(ABC):
    """Moves the state of a model to equilibrium. A new solver defines ``step`` only.

    Args:
        dt: step size, in units of time; where a step is not Euler's, the share of it that is taken.
        tau: time constant τ, in the same units.
        n_relax: steps of the free phase.
        n_nudged: steps of a nudged phase; None is ``n_relax``.
        tol: stop when the residual ``Σ_l mean_batch ‖∂F/∂u[l]‖₂`` falls below it; 0 never tests,
            and so never waits for the device.
        init: where the free phase starts; auto is feedforward where the energy has it, which is
            then the free equilibrium itself, else the solver's own ``default_init``.
    """

    default_init: Init = "normal"

    compiled = False
    """Whether whole phases run as compiled loops: their last digits differ."""

    def __init__(
        self,
        n_relax: int | None,
        n_nudged: int | None = None,
        tol: float = 0.0,
        init: Init = "auto",
        dt: float = 1.0,
        tau: float = 1.0,
    ) -> None:
        if n_relax is None:  # dynamics=auto leaves its numbers to the solver that it chooses
            raise ConfigError(
                f"dynamics.n_relax=null: {type(self).__name__} needs a whole number >= 1"
            )
        self.dt = dt
        self.tau = tau
        self.n_relax = n_relax
        self.n_nudged = n_relax if n_nudged is None else n_nudged
        self.tol = tol
        self.init = init

    @abstractmethod
    def step(self, model: EnergyBasedModel, work: list[Tensor | None], measure: bool) -> None:
        """Move the state once, in place, using the buffers ``work`` (None: a clamped layer).

        With ``measure``, ``work`` must then hold the gradient ∂F/∂u that the step followed.
        """

    def advance(self, model: EnergyBasedModel, work: list[Tensor | None], n_steps: int) -> None:
        """Take ``n_steps`` steps that nobody looks at."""
        for _ in range(n_steps):
            self.step(model, work, measure=False)

    def for_model(self, model: EnergyBasedModel) -> Solver:
        """The solver to relax ``model`` with: this one, if it can.

        Raises:
            ConfigError: if the energy lacks a closed form that the solver needs, or a first state.
        """
        if self.init == "feedforward" and not model.has_feedforward:
            name = type(model).__name__
            raise ConfigError(f"dynamics.init=feedforward: {name} has none; choose normal or zeros")
        return self

    def compile_for(self, model: EnergyBasedModel) -> None:
        """Use compiled loops for ``model`` from now on, where the solver has them for it."""
        return

    def begin(self, model: EnergyBasedModel) -> None:
        """Called once before the steps of a phase."""
        return

    def initialise(self, model: EnergyBasedModel) -> bool:
        """Put the free phase's first state; returns whether it is the free equilibrium already."""
        if self.feeds_forward(model) or self.init == "feedforward":
            self.feed_forward(model)  # says so where the energy has no such pass
            return True
        init = self.default_init if self.init == "auto" else self.init
        if init == "normal":
            model.reset_state()
        else:
            for layer, clamped in zip(model.u, model.clamp_du, strict=True):
                if not clamped:
                    layer.zero_()
        return False

    def feeds_forward(self, model: EnergyBasedModel) -> bool:
        """Whether a feed-forward pass takes the free phase's place."""
        return self.init in ("auto", "feedforward") and model.has_feedforward

    def feed_forward(self, model: EnergyBasedModel) -> None:
        """That pass."""
        model.fast_init()

    def steps_of_both(self, model: EnergyBasedModel) -> int:
        """Steps of a free and a nudged phase; none of the free one where its end is known."""
        return self.n_nudged + (0 if self.feeds_forward(model) else self.n_relax)

    def free_phase(self, model: EnergyBasedModel, measure: bool = False) -> Relaxation:
        """Relax without a target from the first state to the free equilibrium."""
        model.set_C_target(None)
        if self.initialise(model):
            known = 0.0 if measure else None
            return Relaxation(0, StopReason.EXACT, residual=known, energy_change=known)
        return self.relax(model, self.n_relax, measure)

    @torch.no_grad()
    def relax(self, model: EnergyBasedModel, n_steps: int, measure: bool = False) -> Relaxation:
        """Take up to ``n_steps`` from the present state.

        With ``measure`` the result holds the residual and the energy change, for which the device
        is asked; without it, and with ``tol = 0``, it is not.
        """
        with model.holding_weights():
            return self._relax(model, n_steps, measure)

    @torch.no_grad()
    def trace(self, model: EnergyBasedModel, n_steps: int) -> tuple[list[float], list[float]]:
        """Relax as ``relax`` does, looking at every step: F (batch mean) and the residual.

        Both where it starts and after each step. Slow: the device is asked for every number.
        """
        with model.holding_weights():
            self.begin(model)
            work, seen = model.free_layers("gradient"), model.free_layers("seen")
            found, reason = [_energy_and_residual(model, seen)], StopReason.STEP_LIMIT
            while len(found) <= n_steps and reason is StopReason.STEP_LIMIT:
                if self.tol <= 0:
                    self.advance(model, work, 1)
                else:
                    self.step(model, work, measure=True)
                    reason = self._reason(float(model.residual(work)))
                found.append(_energy_and_residual(model, seen))
        energies, residuals = zip(*found, strict=True)
        return list(energies), list(residuals)

    def _relax(self, model: EnergyBasedModel, n_steps: int, measure: bool) -> Relaxation:
        before = model.E.mean() if measure else None
        self.begin(model)
        work = model.free_layers("gradient")
        steps, reason, residual = 0, StopReason.STEP_LIMIT, None
        if self.tol <= 0:
            self.advance(model, work, n_steps)
            steps = n_steps
        while steps < n_steps and reason is StopReason.STEP_LIMIT:
            self.step(model, work, measure=True)
            steps += 1
            residual = float(model.residual(work))
            reason = self._reason(residual)
        if before is None:
            return Relaxation(steps, reason, residual)
        model.total_gradient(work)
        residual = float(model.residual(work))
        change = float(model.E.mean() - before)
        if not (math.isfinite(residual) and math.isfinite(change)):
            reason = StopReason.NOT_FINITE
        return Relaxation(steps, reason, residual, change)

    def _reason(self, residual: float) -> StopReason:
        if residual < self.tol:
            return StopReason.CONVERGED
        return StopReason.STEP_LIMIT if math.isfinite(residual) else StopReason.NOT_FINITE


def _energy_and_residual(model: EnergyBasedModel, work: list[Tensor | None]) -> tuple[float, float]:
    model.total_gradient(work)
    return float(model.E.mean()), float(model.residual(work))


def defines(model: EnergyBasedModel, method: str) -> bool:
    """Whether the energy overrides ``method``."""
    return getattr(type(model), method) is not getattr(EnergyBasedModel, method)


def require(model: EnergyBasedModel, method: str, solver: str) -> None:
    """Refuse ``model`` where it does not define ``method``.

    Raises:
        ConfigError: naming the energy, the method and the solvers that do without.
    """
    if not defines(model, method):
        raise ConfigError(
            f"dynamics={solver}: {type(model).__name__} defines no {method}; "
            "choose dynamics=euler or dynamics=anderson"
        )
