"""The control: backpropagation through time, over the last steps of the free phase."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from eqprop.estimator.estimator import (
    Estimate,
    Estimator,
    Update,
    measured_energy,
    measured_layers,
    measured_relaxation,
    parameter_gradient,
    refuse_clamped,
    target_for,
)
from eqprop.network import Cost, Network, State
from eqprop.relaxation import Relaxation, Solver, StopReason


class BackpropThroughTime(Estimator):
    """∂⟨C(u_T)⟩/∂θ through the last k of the T steps of the free phase, by autograd.

    The solver takes the steps before them; the state from which they start counts as constant. As
    k grows at the equilibrium this becomes the gradient of implicit differentiation. Where a
    feed-forward pass is the free equilibrium, the k steps start there, and stay. Sweeps by the
    rules newton and exact are differentiated as they are at the equilibrium: see `Solver.next`.
    Source: Ernoult et al. (2019).

    Args:
        steps: k; all steps, where the free phase has fewer.
    """

    def __init__(
        self,
        steps: Annotated[
            int, Ge(1), Doc("steps of the free phase, its last, that are differentiated at most")
        ] = 10,
    ) -> None:
        self.steps = steps

    @staticmethod
    def check_config(config: Any) -> None:
        """Refuse a solver whose steps are no differentiable function.

        Raises:
            ValueError: one line, with the key.
        """
        solver = config.dynamics.constructor
        choose = "choose dynamics=euler, dynamics=sweep or estimator=implicit"
        if getattr(solver, "next", None) is Solver.next:
            raise ValueError(
                f"estimator=bptt: {solver.__name__} has no differentiable step; {choose}"
            )
        if getattr(config.dynamics, "adaptive", False):
            raise ValueError(
                "estimator=bptt: dynamics.adaptive=true takes steps back, which has no derivative; "
                "choose dynamics.adaptive=false or estimator=implicit"
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
        refuse_clamped(state, self)
        target, parameters = target_for(state, target), list(network.parameters())
        with torch.no_grad(), state.held():
            free, n_steps = self._first_steps(network, state, solver, measure)
            u = list(state.u)
            with torch.enable_grad():
                for _ in range(n_steps):
                    u = solver.next(network, u, None)
                loss = cost.cost(u[-1], target).mean()
                gradients = parameter_gradient([loss], parameters)
            for layer in state.free:
                state.u[layer] = u[layer].detach()
                state.moved(layer)
            metrics: dict[str, float] = {}
            if measure:
                free = _whole(free, n_steps, solver.relax(network, state, None, 0, True))
                metrics = measured_energy(network, state, "free", cost, target)
                metrics |= measured_relaxation("free", free) | measured_layers(network, state)
        return Estimate(gradients, state.u[-1].clone(), {"free": free}, metrics)

    def capture_obstacle(self) -> str | None:
        own = type(self).estimate is BackpropThroughTime.estimate
        return None if own else super().capture_obstacle()

    def _first_steps(
        self, network: Network, state: State, solver: Solver, measure: bool
    ) -> tuple[Relaxation, int]:
        """Take all steps but those that are differentiated; how these first ones went, and k."""
        if solver.initialise(network, state):
            known = 0.0 if measure else None
            return Relaxation(0, StopReason.EXACT, known, known), self.steps
        n_steps = min(self.steps, solver.n_relax)
        return solver.relax(network, state, None, solver.n_relax - n_steps, measure), n_steps


def _whole(first: Relaxation, n_steps: int, end: Relaxation) -> Relaxation:
    """The free phase, whose first steps, and whose end after ``n_steps`` more, were measured."""
    steps, begun, left = first.steps + n_steps, first.first_residual, end.layer_residuals
    return Relaxation(steps, first.reason, end.residual, None, begun, left)
