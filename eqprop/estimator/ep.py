"""Equilibrium propagation: two or three phases and a difference of local quantities."""

from __future__ import annotations

from torch import Tensor

from eqprop.energy import EnergyBasedModel
from eqprop.estimator.base import Estimate, Estimator, measured_energy, measured_relaxation
from eqprop.relaxation import Relaxation, Solver, StopReason


class EquilibriumPropagation(Estimator):
    """One-sided: ``∇θ = (1/β) [∂E/∂θ(u^β) − ∂E/∂θ(u⁰)]``, with a bias of order β.

    Source: Scellier & Bengio (2017), theorem 1.

    Args:
        beta: nudging strength; a negative one pushes away from the target.
    """

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__(beta)

    def run_phases(
        self, model: EnergyBasedModel, solver: Solver, target: Tensor, measure: bool
    ) -> Estimate:
        free = solver.free_phase(model, measure)
        metrics = measured_energy(model, "free", target) if measure else {}
        output = model.u[-1].clone()
        at_rest = free.reason is StopReason.EXACT  # there, the free gradient is zero
        state = None if at_rest else model.snapshot("free")
        nudged = nudged_phase(model, solver, target, self.beta, measure)
        gradients = self.gradient_buffers(model)
        model.contrast_(state, model.u, 1.0 / self.beta, gradients)
        if measure:
            metrics |= measured_phases(model, target, free, nudged, metrics["energy/free"])
        return Estimate(gradients, output, {"free": free, "nudged": nudged}, metrics)


class CenteredEquilibriumPropagation(Estimator):
    """Centered: ``∇θ = (1/2β) [∂E/∂θ(u^β) − ∂E/∂θ(u^{−β})]``, with a bias of order β².

    Source: Laborieux et al. (2021), equation 9.

    Args:
        beta: nudging strength, positive.
    """

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__(beta)

    def run_phases(
        self, model: EnergyBasedModel, solver: Solver, target: Tensor, measure: bool
    ) -> Estimate:
        free = solver.free_phase(model, measure)
        metrics = measured_energy(model, "free", target) if measure else {}
        state = model.snapshot("free")
        nudged_phase(model, solver, target, -self.beta, measure=False)
        against = model.snapshot("against")
        model.u = state
        nudged = nudged_phase(model, solver, target, self.beta, measure)
        gradients = self.gradient_buffers(model)
        model.contrast_(against, model.u, 0.5 / self.beta, gradients)
        if measure:
            metrics |= measured_phases(model, target, free, nudged, metrics["energy/free"])
        return Estimate(gradients, state[-1].clone(), {"free": free, "nudged": nudged}, metrics)


def nudged_phase(
    model: EnergyBasedModel, solver: Solver, target: Tensor, beta: float, measure: bool
) -> Relaxation:
    """Relax on from the present state, nudged with strength ``beta`` towards ``target``."""
    model.c_energy.beta = beta
    model.set_C_target(target)
    return solver.relax(model, solver.n_nudged, measure)


def measured_phases(
    model: EnergyBasedModel,
    target: Tensor,
    free: Relaxation,
    nudged: Relaxation,
    free_energy: float,
) -> dict[str, float]:
    """The nudged phase's energies and both phases' relaxations."""
    metrics = measured_energy(model, "nudged", target)
    metrics["energy/difference"] = metrics["energy/nudged"] - free_energy
    return metrics | measured_relaxation("free", free) | measured_relaxation("nudged", nudged)
