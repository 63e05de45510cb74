"""The seam for solvers: how a phase starts, its steps, the stopping rule, and the result."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from eqprop.network import Cost, Network, Nudge, State, layer_residuals, residual
from eqprop.network.closed_form import ClosedForms
from eqprop.relaxation import compiled
from eqprop.relaxation.compiled import Move
from eqprop.relaxation.each_sample import relax_each
from eqprop.relaxation.result import Relaxation, StopReason
from eqprop.relaxation.settings import Init, NudgedSteps, Steps, StepSize, TimeConstant, Tolerance
from eqprop.relaxation.start import put_first_state


class Solver(ClosedForms, ABC):
    """Moves the state of a network to equilibrium. A new solver defines ``step`` only.

    Args:
        dt: step size, in units of time; where a step is not Euler's, the share of it that is taken.
        tau: time constant τ, in the same units.
        n_relax: steps of the free phase.
        n_nudged: steps of a nudged phase; None is ``n_relax``.
        tol: stop when the residual ``Σ_l mean_batch ‖∂F/∂u[l]‖₂`` falls below it; 0 never tests,
            and so never waits for the device. In an evaluation (`State.draws`) each sample stops by
            its own residual.
        init: where the free phase starts; auto is feedforward where the energy has it, which is
            then the free equilibrium itself, else the solver's own ``default_init``, or ``normal``
            for an energy that is given as a whole, of which nothing is known at zeros. With
            ``previous`` and ``per_example`` it starts from the state as it is, where that carries
            one from batch to batch (`State.carries`), else from zeros.
    """

    closed_forms: ClassVar = {
        "move": ("step", "steps", "gradient", "bounds", "move_layer"),
        "steps": ("step",),
        "step_and_measure": ("step", "gradient"),
        "next": ("step", "gradient"),
    }
    default_init: Init = "zeros"

    capturable: ClassVar = False
    """Whether every number of a step lies on the device: a class says so for itself only."""
    moves_complex: ClassVar = False
    """Whether a step moves complex states too: a class says so for itself only."""
    follows_slope: ClassVar = False
    """Whether it cannot leave an end of a smooth φ's range, where the energy's slope is infinite:
    states that are rates start from φ(0) instead."""
    compiled = False
    """Whether whole phases run as compiled loops: their last digits differ."""

    def __init__(
        self,
        n_relax: Steps,
        n_nudged: NudgedSteps = None,
        tol: Tolerance = 0.0,
        init: Init = "auto",
        dt: StepSize = 1.0,
        tau: TimeConstant = 1.0,
    ) -> None:
        for key, value in {"dt": dt, "tau": tau}.items():
            if not value > 0:
                raise ValueError(f"dynamics.{key}={value}: must be a number > 0")
        self.dt = dt
        self.tau = tau
        self.n_relax = n_relax
        self.n_nudged = n_relax if n_nudged is None else n_nudged
        self.tol = tol
        self.init = init

    # ------------------------------------------------------------------ what a solver defines

    @abstractmethod
    def step(self, network: Network, state: State, nudge: Nudge | None) -> None:
        """Move the free layers of ``state.u`` once, in place."""

    def next(self, network: Network, u: Sequence[Tensor], nudge: Nudge | None) -> list[Tensor]:
        """The layers after one step from ``u``, whose first is clamped: a differentiable function.

        Raises:
            NotImplementedError: if the solver is known by its ``step`` alone.
        """
        raise NotImplementedError(f"{type(self).__name__} has no differentiable step")

    def begin(self, network: Network, state: State, nudge: Nudge | None) -> None:
        """Called once before the steps of a phase."""

    def suit(self, network: Network) -> None:
        """Set what has been left open, now that the network is known."""
        return

    def check(self, network: Network) -> None:
        """Refuse a network that it cannot relax.

        Raises:
            ValueError: saying why.
        """
        if self.init == "feedforward" and not network.feedforward:
            name = type(network.local).__name__
            raise ValueError(
                f"dynamics.init='feedforward': {name} has no feed-forward state; choose auto, "
                "normal or zeros"
            )
        if network.terms[-1].reads_out and getattr(self, "rule", None) != "projected":
            raise ValueError(
                "model.readout=true: only sweeps by the rule projected put the output where it is "
                "read; choose dynamics=auto, or dynamics=sweep dynamics.rule=projected"
            )

    def seeks_equilibrium(self, network: Network) -> bool:
        """Whether a phase is meant to end at equilibrium: if not, a large residual is no fault."""
        return True

    def move(self) -> Move | None:
        """What a compiled loop has to do in a step; None where there is no loop for it."""
        return None

    def use_compiled_loops(self, network: Network) -> None:
        """Take whole phases as compiled loops from now on, where there are some for ``network``."""
        if self.move() is not None and self.tol <= 0 and compiled.fits(network):
            compiled.load()
            self.compiled = True

    def capture_obstacle(self) -> str | None:
        """Why a step with this solver cannot be captured as a CUDA graph; None if it can."""
        if not vars(type(self)).get("capturable", False):  # a base class cannot say it
            return f"{type(self).__name__} does not say that it can be captured (capturable = True)"
        return "dynamics.tol asks the GPU for a number at every step" if self.tol > 0 else None

    def complex_obstacle(self) -> str | None:
        """Why it cannot relax a complex state; None if it can."""
        if not vars(type(self)).get("moves_complex", False):
            return f"{type(self).__name__} does not say that it can (moves_complex = True)"
        return None

    def least_nudge(self, cost: Cost) -> float:
        """The strength that every nudge by ``cost`` must exceed."""
        return -math.inf

    def advance(self, network: Network, state: State, nudge: Nudge | None, n_steps: int) -> None:
        """Take ``n_steps`` steps that nobody looks at, as a compiled loop where there is one."""
        move = self.move() if self.compiled else None
        if move is not None and compiled.applies(network, state, nudge):
            compiled.relax(network, state, nudge, move, n_steps)
        else:
            self.steps(network, state, nudge, n_steps)

    def steps(self, network: Network, state: State, nudge: Nudge | None, n_steps: int) -> None:
        """Take ``n_steps`` steps one by one."""
        for _ in range(n_steps):
            self._step(network, state, nudge)

    def gradient(self, network: Network, state: State, nudge: Nudge | None) -> list[Tensor | None]:
        """∂F/∂u of each layer as far as the solver can follow it; None for clamped layers."""
        return network.gradient(state, nudge)

    def step_and_measure(self, network: Network, state: State, nudge: Nudge | None) -> Tensor:
        """Take a step and return the residual of the state before it, a scalar tensor."""
        before = residual(self.gradient(network, state, nudge))
        self._step(network, state, nudge)
        return before

    def _step(self, network: Network, state: State, nudge: Nudge | None) -> None:
        self.step(network, state, nudge)
        for layer in state.free:
            state.moved(layer)

    # ------------------------------------------------------------------ phases

    def feeds_forward(self, network: Network) -> bool:
        """Whether a feed-forward pass takes the free phase's place."""
        return self.init in ("auto", "feedforward") and network.feedforward

    def first(self, network: Network) -> Init:
        """Where the free phase starts, if no feed-forward pass takes its place."""
        own = "normal" if network.by_autograd else self.default_init
        return own if self.init == "auto" else self.init

    def initialise(self, network: Network, state: State) -> bool:
        """Put the free phase's first state; returns whether it is the free equilibrium already."""
        if self.feeds_forward(network):
            self.feed_forward(network, state)
            return not any(state.clamped[1:])  # a layer held above it pulls back
        put_first_state(network, state, self.first(network), self.follows_slope)
        return False

    def feed_forward(self, network: Network, state: State) -> None:
        """The feed-forward pass."""
        if self.compiled and compiled.applies(network, state, None):
            compiled.feed_forward(network, state)
        else:
            network.feed_forward(state)

    @torch.no_grad()
    def free_phase(self, network: Network, state: State, measure: bool = False) -> Relaxation:
        """Relax without a nudge from the first state to the free equilibrium."""
        with state.held():
            if state.noise is not None:
                state.noise.phase(state, nudged=False)
            if self.initialise(network, state):
                known = 0.0 if measure else None
                return Relaxation(0, StopReason.EXACT, residual=known, energy_change=known)
            return self.relax(network, state, None, self.n_relax, measure)

    @torch.no_grad()
    def relax(
        self,
        network: Network,
        state: State,
        nudge: Nudge | None,
        n_steps: int,
        measure: bool = False,
        after_step: Callable[[], None] | None = None,
    ) -> Relaxation:
        """Take up to ``n_steps`` from the present state.

        With ``measure`` the result holds the residual and the energy change, for which the device
        is asked; without it, and with ``tol = 0``, it is not. ``after_step`` may change weights if
        it says so by ``state.forget``.
        """
        if not state.free:
            known = 0.0 if measure else None
            return Relaxation(0, StopReason.NOTHING_FREE, residual=known, energy_change=known)
        with state.held():
            if state.noise is not None:
                state.noise.phase(state, nudged=nudge is not None or state.clamped[-1])
            if not measure:
                return Relaxation(*self._steps(network, state, nudge, n_steps, after_step))
            before, first, _ = self._look(network, state, nudge)
            steps, reason, _ = self._steps(network, state, nudge, n_steps, after_step)
            after, last, layers = self._look(network, state, nudge)
        if not (math.isfinite(last) and math.isfinite(after - before)):
            reason = StopReason.NOT_FINITE
        parts = dict(zip(state.free, layers.tolist(), strict=True))
        return Relaxation(steps, reason, last, after - before, first, parts)

    def _look(
        self, network: Network, state: State, nudge: Nudge | None
    ) -> tuple[float, float, Tensor]:
        """F (batch mean) and the residual of the state as it is, and the free layers' parts of it.

        It leaves no trace: a compiled loop would go on from rates that torch rounds otherwise.
        """
        known = list(state.rate_known), list(state.drive_known)
        gradient = self.gradient(network, state, nudge)
        parts = layer_residuals(gradient)
        energy = network.energies(state, nudge).mean().real
        found = float(energy), float(parts.sum())
        state.rate_known, state.drive_known = known
        return *found, parts

    def _steps(
        self,
        network: Network,
        state: State,
        nudge: Nudge | None,
        n_steps: int,
        after_step: Callable[[], None] | None = None,
    ) -> tuple[int, StopReason, float | None]:
        self.begin(network, state, nudge)
        noise = state.noise if state.noise is not None and state.noise.each_step else None
        one_by_one = noise is not None or after_step is not None

        def end_step() -> None:
            if noise is not None:
                noise.step(state)
            if after_step is not None:
                after_step()

        if self.tol <= 0:
            at_once = 1 if one_by_one else max(1, n_steps)
            for _ in range(0, n_steps, at_once):
                self.advance(network, state, nudge, at_once)
                end_step()
            return n_steps, StopReason.STEP_LIMIT, None
        if state.draws is not None:

            def step() -> None:
                self._step(network, state, nudge)
                end_step()

            gradient = partial(self.gradient, network, state, nudge)
            return relax_each(state, n_steps, self.tol, gradient, step)
        last = None
        for taken in range(1, n_steps + 1):
            last = float(self.step_and_measure(network, state, nudge))
            end_step()
            if last < self.tol:
                return taken, StopReason.CONVERGED, last
            if not math.isfinite(last):
                return taken, StopReason.NOT_FINITE, last
        return n_steps, StopReason.STEP_LIMIT, last

    @torch.no_grad()
    def trace(
        self, network: Network, state: State, nudge: Nudge | None, n_steps: int
    ) -> tuple[list[float], list[float]]:
        """Relax as ``relax`` does, looking at every step: F (batch mean) and the residual.

        Both where it starts and after each step. Slow: the device is asked for every number.
        """
        with state.held():
            self.begin(network, state, nudge)
            found = [self._look(network, state, nudge)]
            for _ in range(n_steps):
                if self.tol > 0:
                    self.step_and_measure(network, state, nudge)
                else:
                    self.advance(network, state, nudge, 1)
                converged = found[-1][1] < self.tol
                found.append(self._look(network, state, nudge))
                if converged or not math.isfinite(found[-1][1]):
                    break
        energies, residuals, _ = zip(*found, strict=True)
        return list(energies), list(residuals)
