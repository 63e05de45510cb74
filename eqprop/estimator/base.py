"""The seam for estimators: which phases run, and how they give a gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eqprop.energy import EnergyBasedModel
from eqprop.relaxation import Relaxation, Solver


@dataclass(frozen=True)
class Estimate:
    """One gradient estimate of a batch.

    Attributes:
        gradients: one tensor a parameter, in ``parameters()`` order, in buffers that the next
            estimate writes into.
        output: the last layer (batch, n_out) of the free phase: what the network predicts.
        phases: the relaxations, by name: free, nudged, …
        metrics: what was measured, under the names of DESIGN §7; empty unless asked for.
    """

    gradients: list[Tensor]
    output: Tensor
    phases: dict[str, Relaxation] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


class Estimator(ABC):
    """Turns a batch into one gradient a parameter. The caller has clamped the input layer."""

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self._gradients: list[Tensor] = []

    def estimate(
        self, model: EnergyBasedModel, solver: Solver, target: Tensor, measure: bool = False
    ) -> Estimate:
        """The gradient for a one-hot ``target`` (batch, n_out), with measurements if wanted."""
        with torch.no_grad(), model.holding_weights():
            return self.run_phases(model, solver, target, measure)

    @abstractmethod
    def run_phases(
        self, model: EnergyBasedModel, solver: Solver, target: Tensor, measure: bool
    ) -> Estimate:
        """What an estimator defines: its phases and their gradient; the weights are held."""

    def gradient_buffers(self, model: EnergyBasedModel) -> list[Tensor]:
        """Tensors like the parameters, allocated once."""
        parameters = list(model.parameters())
        mine = self._gradients
        fits = len(mine) == len(parameters) and all(
            g.shape == p.shape and g.dtype == p.dtype and g.device == p.device
            for g, p in zip(mine, parameters, strict=True)
        )
        if not fits:
            self._gradients = [torch.zeros_like(p) for p in parameters]
        return self._gradients


def measured_energy(model: EnergyBasedModel, phase: str, target: Tensor) -> dict[str, float]:
    """``energy/<phase>``: batch mean of E; ``cost/<phase>``: of C, not multiplied by β."""
    with torch.no_grad():
        return {
            f"energy/{phase}": float(model.energy(model.u).mean()),
            f"cost/{phase}": float(model.c_energy.cost(model.u[-1], target).mean()),
        }


def measured_relaxation(phase: str, relaxation: Relaxation) -> dict[str, float]:
    """``relaxation/<phase>_steps`` and ``_residual``."""
    metrics: dict[str, float] = {f"relaxation/{phase}_steps": relaxation.steps}
    if relaxation.residual is not None:
        metrics[f"relaxation/{phase}_residual"] = relaxation.residual
    return metrics
