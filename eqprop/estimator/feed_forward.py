"""What estimators share that differentiate a feed-forward pass and relax nothing."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from eqprop.estimator.estimator import Estimator, measured_energy, measured_layers
from eqprop.network import Cost, Network, State
from eqprop.relaxation import Solver


class FeedForward(Estimator):
    """Estimates the gradient of the cost of a feed-forward pass, in evaluation the same pass.

    Attributes:
        option: what ``estimator=`` calls it, for what it refuses.
    """

    option: ClassVar[str]
    relaxes: ClassVar = False

    def predict(self, network: Network, state: State, solver: Solver) -> None:
        network.feed_forward(state)

    def check(self, network: Network) -> None:
        if network.by_autograd:
            raise ValueError(
                f"estimator={self.option}: {type(network).__name__} gives its energy as a whole, "
                "so it has no feed-forward pass; choose estimator=ep"
            )
        if network.cycle:
            path = " -> ".join(map(str, network.cycle))
            raise ValueError(
                f"estimator={self.option}: edges go around through layers {path}, so there is no "
                "feed-forward pass; choose estimator=ep"
            )

    def measured(
        self, network: Network, state: State, cost: Cost, target: Tensor
    ) -> dict[str, float]:
        """What the record says of a state where ``predict`` has put it."""
        whole = measured_energy(network, state, "free", cost, target)
        return whole | measured_layers(network, state)
