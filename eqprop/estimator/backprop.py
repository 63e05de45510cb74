"""The control: backpropagation through the very same network."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from eqprop.estimator.estimator import (
    Estimate,
    Update,
    parameter_gradient,
    refuse_clamped,
    target_for,
)
from eqprop.estimator.feed_forward import FeedForward
from eqprop.network import Cost, Network, State
from eqprop.relaxation import Solver


class Backprop(FeedForward):
    """∂⟨C⟩/∂θ through a feed-forward pass of the network, by autograd.

    The edges, biases, activations and the cost are those of the network; its energy plays no part,
    and nothing is relaxed, in evaluation either.
    """

    option: ClassVar[str] = "backprop"

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
        with torch.enable_grad():
            output = network.feed_forward_output(state.u[0])
            loss = cost.cost(output, target).mean()
            gradients = parameter_gradient([loss], parameters)
        metrics: dict[str, float] = {}
        if measure:
            with state.held():
                self.predict(network, state, solver)
                metrics = self.measured(network, state, cost, target)
        return Estimate(gradients, output.detach(), {}, metrics)

    def capture_obstacle(self) -> str | None:
        return None if type(self).estimate is Backprop.estimate else super().capture_obstacle()
