"""An estimator without a nudging strength."""

from __future__ import annotations

from torch import Tensor

from eqprop.estimator import Estimate, Estimator
from eqprop.estimator.estimator import Update
from eqprop.network import Cost, Network, State, WeightGradient
from eqprop.relaxation import Solver


class ContrastiveHebbian(Estimator):
    """∂E/∂θ with the output held at the target, minus ∂E/∂θ at the free equilibrium.

    Source: Movellan (1991).
    """

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
        total, last = WeightGradient(network), network.n_layers - 1
        with state.held():
            free = solver.free_phase(network, state, measure)
            output = state.u[last].clone()
            total.add(state, -1.0)
            state.clamp(last, target)
            clamped = solver.relax(network, state, None, solver.n_nudged, measure)
            total.add(state, 1.0)
            gradients = total.finish(state)
        state.release(last)
        return Estimate(gradients, output, {"free": free, "clamped": clamped})
