"""Networks, their energies and their states: the mathematics that everything else moves.

Read ``local`` first (what an energy is), then ``network`` (how it is evaluated), then ``state``.
"""

from eqprop.network.activation import ACTIVATIONS, Activation
from eqprop.network.chain import chain
from eqprop.network.cost import CEnergy, Cost, CrossEntropy, Nudge, SquaredError
from eqprop.network.edge import Dense, Edge
from eqprop.network.energy import Gaussian, Hopfield
from eqprop.network.gradient import WeightGradient
from eqprop.network.local import LocalEnergy, Site
from eqprop.network.model import ConditionalGaussian, EnergyBasedModel, RestrictedHopfield
from eqprop.network.network import Network, residual
from eqprop.network.state import State

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "CEnergy",
    "ConditionalGaussian",
    "Cost",
    "CrossEntropy",
    "Dense",
    "Edge",
    "EnergyBasedModel",
    "Gaussian",
    "Hopfield",
    "LocalEnergy",
    "Network",
    "Nudge",
    "RestrictedHopfield",
    "Site",
    "SquaredError",
    "State",
    "WeightGradient",
    "chain",
    "residual",
]
