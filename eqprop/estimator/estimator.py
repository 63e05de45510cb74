"""The seam for estimators: which phases run, and how they give a gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eqprop.network import Cost, Network, Nudge, State
from eqprop.relaxation import Relaxation, Solver

Update = Callable[[list[Tensor]], None]


@dataclass(frozen=True)
class Estimate:
    """One gradient estimate of a batch.

    Attributes:
        gradients: one tensor a parameter, in ``parameters()`` order, in buffers that the next
            estimate of the same estimator writes into.
        output: the last layer (batch, n_out) of the free phase: what the network predicts.
        phases: the relaxations, by name: free, nudged, …
        metrics: what was measured, by the names of metrics.jsonl; empty unless asked for.
        applied: whether the weights have been moved already, through ``update``.
    """

    gradients: list[Tensor]
    output: Tensor
    phases: dict[str, Relaxation] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    applied: bool = False


class Estimator(ABC):
    """Turns a batch into one gradient a parameter. The caller has clamped the input layer."""

    @abstractmethod
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
        """The gradient for a one-hot ``target`` (batch, n_out), with measurements if wanted.

        ``update`` moves the weights by a gradient: for estimators that learn within a phase.
        """

    def nudges(self, cost: Cost, target: Tensor) -> Iterator[tuple[str, Nudge]]:
        """The nudged phases that start at the free equilibrium, by name: diagnostics draw them."""
        return iter(())

    def remedies(self) -> dict[str, float]:
        """The settings that a training which diverges may lower, by their keys."""
        return {}

    def capture_obstacle(self) -> str | None:
        """Why a step with this estimator cannot be captured as a CUDA graph; None if it can."""
        return f"{type(self).__name__} does not say that it can be captured"


def nudged(cost: Cost, target: Tensor, beta: float | Tensor) -> Nudge:
    """The nudge β C with β as a tensor beside the target."""
    if isinstance(beta, Tensor):
        return Nudge(cost, target, beta)
    return Nudge(cost, target, target.new_full((), beta))  # a fill, which can be captured


def measured_energy(
    network: Network, state: State, phase: str, cost: Cost, target: Tensor
) -> dict[str, float]:
    """``energy/<phase>``: batch mean of E; ``cost/<phase>``: of C, not multiplied by β."""
    with torch.no_grad():
        return {
            f"energy/{phase}": float(network.energies(state).mean()),
            f"cost/{phase}": float(cost.cost(state.u[-1], target).mean()),
        }


def measured_relaxation(phase: str, relaxation: Relaxation) -> dict[str, float]:
    """``relaxation/<phase>_steps`` and ``_residual``."""
    metrics: dict[str, float] = {f"relaxation/{phase}_steps": relaxation.steps}
    if relaxation.residual is not None:
        metrics[f"relaxation/{phase}_residual"] = relaxation.residual
    return metrics
