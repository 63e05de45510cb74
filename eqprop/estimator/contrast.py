"""Equilibrium propagation: the gradient as a contrast of nudged phases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from eqprop.estimator.estimator import (
    Estimate,
    Estimator,
    Update,
    measured_energy,
    measured_layers,
    measured_relaxation,
    nudged,
    refuse_low_nudge,
    target_for,
)
from eqprop.network import Cost, Network, Nudge, State, WeightGradient
from eqprop.relaxation import Relaxation, Solver, StopReason

Strength = float | Tensor
"""A β or a coefficient: a number, or a tensor, one number or (batch,)."""


class Contrast(Estimator):
    """``∇θ = Σ_k c_k ∂E/∂θ(u^{β_k})``, each nudged phase relaxed from the free equilibrium.

    A phase of β = 0 is the free equilibrium itself. As the β go to zero with Σ c_k = 0 and
    Σ c_k β_k = 1 this is the gradient of the cost at the free equilibrium.

    Args:
        phases: the pairs (β_k, c_k), in the order in which they run. A subclass may choose those
            of each batch, by ``drawn``.
    """

    follows_cost: ClassVar = True

    def __init__(self, phases: Sequence[tuple[float, float]]) -> None:
        self.phases = [(float(beta), float(c)) for beta, c in phases]
        self._sum: WeightGradient | None = None

    def drawn(self, state: State) -> Sequence[tuple[Strength, Strength]]:
        """The phases of this batch. What is random comes from ``state.generator``.

        A captured step repeats it on the device: tensors that it draws are drawn anew.
        """
        return self.phases

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
        total, target = self._gradient_sum(network), target_for(state, target)
        with torch.no_grad(), state.held():
            total.begin()
            free = solver.free_phase(network, state, measure)
            metrics: dict[str, float] = {}
            if measure:
                metrics = measured_energy(network, state, "free", cost, target)
            output = state.u[-1].clone()
            at_rest = free.reason is StopReason.EXACT  # there, the free gradient is zero
            phases = self.drawn(state)
            for c in (c for beta, c in phases if _is_free(beta) and not at_rest):
                total.add(state, c)
            last = free
            todo = [(beta, c) for beta, c in phases if not _is_free(beta)]
            start = state.copy() if len(todo) > 1 else None
            for k, (beta, c) in enumerate(todo):
                if k > 0 and start is not None:
                    state.restore(start)
                nudge, is_last = nudged(cost, target, beta), k == len(todo) - 1
                last = self.nudged_phase(network, state, solver, nudge, measure and is_last)
                total.add(state, c)
            if measure:
                metrics |= measured_energy(network, state, "nudged", cost, target)
                metrics |= _measured_phases(metrics, free, last)
                metrics |= measured_layers(network, state)
            gradients = total.finish(state)
        return Estimate(gradients, output, {"free": free, "nudged": last}, metrics)

    def nudged_phase(
        self, network: Network, state: State, solver: Solver, nudge: Nudge, measure: bool
    ) -> Relaxation:
        """Relax from the free equilibrium, where ``state`` is, to one with another output."""
        return solver.relax(network, state, nudge, solver.n_nudged, measure)

    def check_with(self, solver: Solver, cost: Cost) -> None:
        lowest = min((beta for beta, _ in self.phases), default=0.0)
        refuse_low_nudge(self, lowest, solver, cost)

    def nudges(self, cost: Cost, target: Tensor) -> Iterator[tuple[str, Nudge]]:
        last = [beta for beta, _ in self.phases if beta != 0.0][-1]
        yield "nudged", nudged(cost, target, last)

    def capture_obstacle(self) -> str | None:
        own = type(self).estimate, type(self).nudged_phase
        known = Contrast.estimate, Contrast.nudged_phase
        return None if own == known else super().capture_obstacle()

    def _gradient_sum(self, network: Network) -> WeightGradient:
        if self._sum is None or not self._sum.fits(network):
            self._sum = WeightGradient(network)
        return self._sum


def _is_free(beta: Strength) -> bool:
    return not isinstance(beta, Tensor) and beta == 0.0


def _measured_phases(
    metrics: dict[str, float], free: Relaxation, last: Relaxation
) -> dict[str, float]:
    """What both phases' energies and relaxations say."""
    difference = {"energy/difference": metrics["energy/nudged"] - metrics["energy/free"]}
    return difference | measured_relaxation("free", free) | measured_relaxation("nudged", last)
