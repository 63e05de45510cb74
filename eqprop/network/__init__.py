"""Networks, their energies and their states: the mathematics that everything else moves.

Read ``local`` first (what an energy is), then ``network`` (how it is evaluated), then ``state``.
"""

from eqprop.network.activation import ACTIVATIONS, Activation
from eqprop.network.chain import Skip, chain
from eqprop.network.continuation import Continuation
from eqprop.network.conv import Conv, Identity
from eqprop.network.cost import CEnergy, Cost, CrossEntropy, Nudge, SquaredError
from eqprop.network.edge import Dense, Edge
from eqprop.network.energy import Gaussian, Hopfield
from eqprop.network.gradient import WeightGradient
from eqprop.network.local import LocalEnergy, Site
from eqprop.network.model import ConditionalGaussian, EnergyBasedModel, RestrictedHopfield
from eqprop.network.network import Network
from eqprop.network.rate_energy import PredictiveCoding, RateHopfield
from eqprop.network.residuals import layer_residuals, residual
from eqprop.network.state import Disturbance, State

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "CEnergy",
    "ConditionalGaussian",
    "Continuation",
    "Conv",
    "Cost",
    "CrossEntropy",
    "Dense",
    "Disturbance",
    "Edge",
    "EnergyBasedModel",
    "Gaussian",
    "Hopfield",
    "Identity",
    "LocalEnergy",
    "Network",
    "Nudge",
    "PredictiveCoding",
    "RateHopfield",
    "RestrictedHopfield",
    "Site",
    "Skip",
    "SquaredError",
    "State",
    "WeightGradient",
    "chain",
    "layer_residuals",
    "residual",
]
