"""Holomorphic equilibrium propagation: nudges of complex strength, on a circle around zero."""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from typing import Annotated
from weakref import WeakKeyDictionary

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from typing_extensions import Doc

from eqprop.estimator.contrast import Contrast, Strength
from eqprop.estimator.estimator import Estimate, Update, measured_relaxation, nudged, target_for
from eqprop.network import Continuation, Cost, Network, State, WeightGradient
from eqprop.network.state import Snapshot
from eqprop.relaxation import Relaxation, Solver


class HolomorphicEquilibriumPropagation(Contrast):
    """``∇θ = (1/Nr) Σ_k e^{−iφ_k} ∂E/∂θ(u^{β_k})``, β_k = r e^{iφ_k}, φ_k = 2πk/N: bias O(r^N).

    The energy is continued to complex states, where it is analytic. Phases of conjugate strengths
    are conjugate to each other: of each such pair one is relaxed, and the real part is doubled.
    The phases at ±r are real, and need no complex state.
    A measured step relaxes the other of each pair as well: ``holomorphic/imaginary`` is the norm of
    the imaginary part that is discarded over that of the gradient. It is rounding, unless a phase
    has gone around a pole of the energy or across a cut.
    Source: Laborieux & Zenke (2022).

    Args:
        radius: of the circle.
        points: on the circle, evenly spaced, the first at β = r.
    """

    def __init__(
        self,
        radius: Annotated[float, Gt(0), Doc("size of all nudges: the circle's radius")] = 0.5,
        points: Annotated[
            int, Ge(2), Doc("nudges on the circle; half of them are relaxed (2: as ep_centered)")
        ] = 4,
    ) -> None:
        if not radius > 0.0:
            raise ValueError(f"estimator.radius={radius}: must be a number > 0")
        if points < 2:
            raise ValueError(f"estimator.points={points}: must be 2 or more")
        c = 1.0 / (points * radius)
        opposite = [(-radius, -c)] if points % 2 == 0 else []
        super().__init__([*opposite, (radius, c)])
        angles = [2.0 * math.pi * k / points for k in range(1, (points + 1) // 2)]
        self.complex_phases = [
            (cmath.rect(radius, angle), cmath.rect(2.0 * c, -angle)) for angle in angles
        ]
        self.radius = radius
        self.points = points
        self.order = points
        self._of: Network | None = None
        self._complex: tuple[Continuation, WeightGradient] | None = None
        self._twins: WeakKeyDictionary[State, State] = WeakKeyDictionary()

    def check(self, network: Network) -> None:
        if self.complex_phases:
            try:
                Continuation(network)
            except ValueError as error:
                raise ValueError(f"estimator=holomorphic: {error}") from error

    def check_with(self, solver: Solver, cost: Cost) -> None:
        super().check_with(solver, cost)
        if not self.complex_phases:
            return
        if not cost.analytic:
            raise ValueError(
                f"estimator=holomorphic: {type(cost).__name__} does not say that it is analytic "
                "(analytic = True); choose cost=mse or cost=cross_entropy"
            )
        if obstacle := solver.complex_obstacle():
            raise ValueError(
                f"estimator=holomorphic relaxes complex states: {obstacle}; choose dynamics=auto, "
                "newton, sweep or euler"
            )

    def estimate(
        self,
        network: Network,
        state: State,
        solver: Solver,
        cost: Cost,
        target: Tensor,
        *,
        update: Update | None = None,
        measure: bool = False,
    ) -> Estimate:
        how = network, state, solver, cost, target
        if not self.complex_phases:
            return super().estimate(*how, measure=measure)
        self.check_with(solver, cost)
        with torch.no_grad(), state.held(), self._twin(network, state).held():
            found = super().estimate(*how, measure=measure)
            target, twin = target_for(state, target), self._twins[state]
            start, phases = twin.copy(), self.complex_phases
            total, last = self._summed(phases, twin, start, solver, cost, target, measure)
            torch._foreach_add_(found.gradients, total)
            if measure:
                both = [*phases, *((beta.conjugate(), c.conjugate()) for beta, c in phases)]
                both = [(beta, -0.5j * c) for beta, c in both]  # Im z = Re(−i z)
                discarded, _ = self._summed(both, twin, start, solver, cost, target)
                norm = torch.nn.utils.get_total_norm
                ratio = norm(discarded) / norm(found.gradients).clamp_min(1e-30)
                found.phases["complex"] = last
                found.metrics.update(measured_relaxation("complex", last))
                found.metrics["holomorphic/imaginary"] = float(ratio)
        return found

    def drawn(self, state: State) -> Sequence[tuple[Strength, Strength]]:
        """As the base class says; at this free equilibrium the complex phases start as well."""
        if self._complex is not None and state in self._twins:
            self._complex[0].follow(state, self._twins[state])
        return self.phases

    def _summed(
        self,
        phases: Sequence[tuple[complex, complex]],
        twin: State,
        start: Snapshot,
        solver: Solver,
        cost: Cost,
        target: Tensor,
        measure: bool = False,
    ) -> tuple[list[Tensor], Relaxation]:
        """Re Σ_k c_k ∂E/∂θ(u^{β_k}), each phase relaxed from the free equilibrium ``start``."""
        assert self._complex is not None
        network, total = self._complex
        total.begin()
        for beta, c in phases:
            twin.restore(start)
            nudge = nudged(cost, target, twin.u[-1].new_full((), beta))
            last = solver.relax(network, twin, nudge, solver.n_nudged, measure)
            total.add(twin, twin.u[-1].new_full((), c))
        return total.finish(twin), last

    def _twin(self, network: Network, state: State) -> State:
        """The complex state beside ``state``, which lives as long."""
        found = self._complex if self._of is network else None
        if found is None or not found[1].fits(found[0]):
            continued = Continuation(network)
            self._of, self._complex = network, (continued, WeightGradient(continued))
            self._twins.clear()
        if self._complex is not None and state not in self._twins:
            self._twins[state] = self._complex[0].new_state(state.batch_size)
        return self._twins[state]

    def remedies(self) -> dict[str, float]:
        return {"estimator.radius": self.radius}

    def capture_obstacle(self) -> str | None:
        own = type(self).estimate is HolomorphicEquilibriumPropagation.estimate
        return None if own else super().capture_obstacle()
