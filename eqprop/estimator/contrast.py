"""Equilibrium propagation: the gradient as a contrast of nudged phases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from annotated_types import Gt, Predicate
from torch import Tensor
from typing_extensions import Doc

from eqprop.estimator.estimator import (
    Estimate,
    Estimator,
    Update,
    measured_energy,
    measured_layers,
    measured_relaxation,
    nudged,
)
from eqprop.network import Cost, Network, Nudge, State, WeightGradient
from eqprop.network.cost import fitting
from eqprop.relaxation import Relaxation, Solver, StopReason


def other_than_zero(beta: float) -> bool:
    """Whether a nudge of this strength moves the output at all."""
    return beta != 0


class Contrast(Estimator):
    """``∇θ = Σ_k c_k ∂E/∂θ(u^{β_k})``, each nudged phase relaxed from the free equilibrium.

    A phase of β = 0 is the free equilibrium itself. As the β go to zero with Σ c_k = 0 and
    Σ c_k β_k = 1 this is the gradient of the cost at the free equilibrium.

    Args:
        phases: the pairs (β_k, c_k), in the order in which they run.
    """

    def __init__(self, phases: Sequence[tuple[float, float]]) -> None:
        self.phases = [(float(beta), float(c)) for beta, c in phases]
        self._sum: WeightGradient | None = None

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
        total, target = self._gradient_sum(network), fitting(target, state.u[-1])
        with torch.no_grad(), state.held():
            total.begin()
            free = solver.free_phase(network, state, measure)
            metrics: dict[str, float] = {}
            if measure:
                metrics = measured_energy(network, state, "free", cost, target)
            output = state.u[-1].clone()
            at_rest = free.reason is StopReason.EXACT  # there, the free gradient is zero
            for c in (c for beta, c in self.phases if beta == 0.0 and not at_rest):
                total.add(state, c)
            last = free
            todo = [(beta, c) for beta, c in self.phases if beta != 0.0]
            start = state.copy() if len(todo) > 1 else None
            for k, (beta, c) in enumerate(todo):
                if k > 0 and start is not None:
                    state.restore(start)
                nudge, is_last = nudged(cost, target, beta), k == len(todo) - 1
                last = solver.relax(network, state, nudge, solver.n_nudged, measure and is_last)
                total.add(state, c)
            if measure:
                metrics |= measured_energy(network, state, "nudged", cost, target)
                metrics |= _measured_phases(metrics, free, last)
                metrics |= measured_layers(network, state)
            gradients = total.finish(state)
        return Estimate(gradients, output, {"free": free, "nudged": last}, metrics)

    def nudges(self, cost: Cost, target: Tensor) -> Iterator[tuple[str, Nudge]]:
        last = [beta for beta, _ in self.phases if beta != 0.0][-1]
        yield "nudged", nudged(cost, target, last)

    def capture_obstacle(self) -> str | None:
        return None if type(self).estimate is Contrast.estimate else super().capture_obstacle()

    def _gradient_sum(self, network: Network) -> WeightGradient:
        if self._sum is None or not self._sum.fits(network):
            self._sum = WeightGradient(network)
        return self._sum


class EquilibriumPropagation(Contrast):
    """One-sided: ``∇θ = (1/β) [∂E/∂θ(u^β) − ∂E/∂θ(u⁰)]``, with a bias of order β.

    Source: Scellier & Bengio (2017), theorem 1.

    Args:
        beta: nudging strength; a negative one pushes away from the target.
    """

    def __init__(
        self,
        beta: Annotated[
            float, Predicate(other_than_zero), Doc("strength of the nudge towards the target")
        ] = 1.0,
    ) -> None:
        if beta == 0.0:
            raise ValueError("estimator.beta=0: must be a number other than 0")
        super().__init__([(0.0, -1.0 / beta), (beta, 1.0 / beta)])
        self.beta = beta

    def remedies(self) -> dict[str, float]:
        return {"estimator.beta": self.beta}


class CenteredEquilibriumPropagation(Contrast):
    """Centered: ``∇θ = (1/2β) [∂E/∂θ(u^β) − ∂E/∂θ(u^{−β})]``, with a bias of order β².

    Source: Laborieux et al. (2021), equation 9.

    Args:
        beta: nudging strength, positive.
    """

    both_signs = True

    def __init__(
        self, beta: Annotated[float, Gt(0), Doc("strength of the nudge to either side")] = 1.0
    ) -> None:
        if not beta > 0.0:
            raise ValueError(f"estimator.beta={beta}: must be a number > 0")
        super().__init__([(-beta, -0.5 / beta), (beta, 0.5 / beta)])
        self.beta = beta

    def remedies(self) -> dict[str, float]:
        return {"estimator.beta": self.beta}


def _measured_phases(
    metrics: dict[str, float], free: Relaxation, last: Relaxation
) -> dict[str, float]:
    """What both phases' energies and relaxations say."""
    difference = {"energy/difference": metrics["energy/nudged"] - metrics["energy/free"]}
    return difference | measured_relaxation("free", free) | measured_relaxation("nudged", last)
