"""Which part of a network is kept from learning, to see what that part is worth."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch.nn import Parameter

from eqprop.network import Network
from eqprop.training.optimizer import weighted_layers


class Ablation(ABC):
    """The seam: the optimizer gets the parameters that learn, so that nothing moves the others.

    Their gradients are estimated, and measured, all the same.
    """

    @abstractmethod
    def trained(self, network: Network) -> list[Parameter]:
        """The parameters that learn, in any order."""


class FrozenLower(Ablation):
    """Of the edges into the output only; all below stay as they were initialised.

    Whatever a network without it gains is what errors that reach the lower layers are worth.
    """

    def trained(self, network: Network) -> list[Parameter]:
        return weighted_layers(network)[-1]
