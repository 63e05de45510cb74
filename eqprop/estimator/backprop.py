"""The control: backpropagation through the very same network."""

from __future__ import annotations

import torch
from torch import Tensor

from eqprop.estimator.estimator import Estimate, Estimator, Update, measured_energy
from eqprop.network import Cost, Network, State
from eqprop.relaxation import Solver


class Backprop(Estimator):
    """∂⟨C⟩/∂θ through a feed-forward pass of the network, by autograd.

    The edges, biases, activations and the cost are those of the network; its energy plays no part,
    and nothing is relaxed, in evaluation either.
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
        parameters = list(network.parameters())
        with torch.enable_grad():
            output = network.forward(state.u[0])
            loss = cost.cost(output, target).mean()
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
        gradients = [
            torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)
        ]
        metrics: dict[str, float] = {}
        if measure:
            self.predict(network, state, solver)
            metrics = measured_energy(network, state, "free", cost, target)
        return Estimate(gradients, output.detach(), {}, metrics)

    def predict(self, network: Network, state: State, solver: Solver) -> None:
        network.feed_forward(state)

    def check(self, network: Network) -> None:
        if network.by_autograd:
            raise ValueError(
                f"estimator=backprop: {type(network).__name__} gives its energy as a whole, so "
                "there is no feed-forward pass to differentiate; choose estimator=ep"
            )
        if network.cycle:
            path = " -> ".join(map(str, network.cycle))
            raise ValueError(f"estimator=backprop: edges go around through layers {path}")

    def capture_obstacle(self) -> str | None:
        return None if type(self).estimate is Backprop.estimate else super().capture_obstacle()
