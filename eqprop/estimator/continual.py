"""Equilibrium propagation whose weights move at every step of the nudged phase."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import count
from typing import Annotated, Any

import torch
from annotated_types import Predicate
from torch import Tensor
from typing_extensions import Doc

from eqprop.estimator.equilibrium_propagation import EquilibriumPropagation, other_than_zero
from eqprop.estimator.estimator import (
    Estimate,
    Update,
    measured_energy,
    measured_layers,
    measured_relaxation,
    nudged,
    target_for,
)
from eqprop.network import Cost, Network, State
from eqprop.relaxation import Relaxation, Solver

log = logging.getLogger(__name__)


class ContinualEP(EquilibriumPropagation):
    """C-EP: the weights move by ``(1/β) [∂E/∂θ(u_{t+1}) − ∂E/∂θ(u_t)]`` at each nudged step t.

    Both terms are taken at the weights of that step. With fixed weights their sum over the phase
    is the estimate of :class:`EquilibriumPropagation`; with moving ones it differs from that by
    the order of the learning rate. Each small step is a step of the optimizer, and plain gradient
    descent is meant: momentum and Adam's means run over the small steps, Adam scales them up to
    its own rate, weight decay acts at each of them, and ``clip_norm`` bounds each by itself.

    ``Estimate.gradients`` are the sum over the phase. Without ``update`` no weight moves.

    Source: Ernoult, Grollier, Querlioz, Bengio & Scellier (2020), "Equilibrium Propagation with
    Continual Weight Updates".

    Args:
        beta: nudging strength; a negative one pushes away from the target.
    """

    def __init__(
        self,
        beta: Annotated[
            float, Predicate(other_than_zero), Doc("strength of the nudge towards the target")
        ] = 4.0,
    ) -> None:
        super().__init__(beta)
        self._warnings: list[str] = []

    @classmethod
    def check_config(cls, config: Any) -> None:
        """Refuse a solver that compares the energies of successive steps.

        Raises:
            ValueError: one line, with the key.
        """
        if getattr(config.dynamics, "adaptive", False):
            raise ValueError(
                "dynamics.adaptive=true: it compares the energies of successive steps, between "
                "which estimator=continual moves the weights; choose false, or estimator=ep"
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
        if update is None:
            return super().estimate(network, state, solver, cost, target, measure=measure)
        move = update
        change, target = self._gradient_sum(network), target_for(state, target)
        total = [torch.zeros_like(p) for p in network.parameters()]
        steps = count(1)

        def begin_step() -> None:
            change.begin()
            change.add(state, -1.0 / self.beta)

        def end_step() -> None:
            change.add(state, 1.0 / self.beta)
            gradients = change.finish(state)
            torch._foreach_add_(total, gradients)
            move(gradients)
            state.forget()  # every drive, and where the layers would rest
            if next(steps) < solver.n_nudged:
                begin_step()

        with torch.no_grad(), state.held():
            free = solver.free_phase(network, state, measure)
            output, metrics = state.u[-1].clone(), dict[str, float]()
            if measure:
                metrics = measured_energy(network, state, "free", cost, target)
            nudge = nudged(cost, target, self.beta)
            begin_step()
            last = solver.relax(network, state, nudge, solver.n_nudged, measure, end_step)
            if measure:
                last = self._judged(last)
                metrics |= measured_energy(network, state, "nudged", cost, target)
                metrics["energy/difference"] = metrics["energy/nudged"] - metrics["energy/free"]
                metrics |= measured_relaxation("free", free) | measured_relaxation("nudged", last)
                metrics |= measured_layers(network, state)
        return Estimate(total, output, {"free": free, "nudged": last}, metrics, applied=True)

    def _judged(self, phase: Relaxation) -> Relaxation:
        """Warn, once, where the state runs away with its weights.

        A step of the weights moves the drives along with the state. Where it does so by more than
        the state has moved, there is no equilibrium to reach; that is no fault of the solver, so
        that the residual at the start is kept from whoever judges solvers by it.
        """
        first, last = phase.first_residual, phase.residual
        if not self._warnings and first is not None and last is not None and last > first:
            self._warnings.append(
                f"estimator=continual: the weights move faster than the state can follow: in a "
                f"nudged phase the residual rose from {first:.3g} to {last:.3g}; lower "
                f"optimizer.lr, raise estimator.beta ({self.beta:g}), and choose sgd rather than "
                "adam, which scales each small step up to its rate"
            )
            log.warning(self._warnings[0])
        return replace(phase, first_residual=None)

    def capture_obstacle(self) -> str | None:
        if type(self).estimate is ContinualEP.estimate:
            return None
        return f"{type(self).__name__} does not say that it can be captured"
