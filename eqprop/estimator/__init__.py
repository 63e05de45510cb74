"""Which phases run, and how they give a gradient."""

from eqprop.estimator.asymmetric import AsymmetricEquilibriumPropagation
from eqprop.estimator.backprop import Backprop
from eqprop.estimator.bptt import BackpropThroughTime
from eqprop.estimator.continual import ContinualEP
from eqprop.estimator.contrast import Contrast
from eqprop.estimator.coupled import ContrastiveHebbianLearning, CoupledLearning
from eqprop.estimator.dual_propagation import DualPropagation
from eqprop.estimator.equilibrium_propagation import (
    CenteredEquilibriumPropagation,
    EquilibriumPropagation,
    FourPointEquilibriumPropagation,
    RandomSignEquilibriumPropagation,
)
from eqprop.estimator.estimator import Estimate, Estimator
from eqprop.estimator.holomorphic import HolomorphicEquilibriumPropagation
from eqprop.estimator.implicit import ImplicitDifferentiation

__all__ = [
    "AsymmetricEquilibriumPropagation",
    "Backprop",
    "BackpropThroughTime",
    "CenteredEquilibriumPropagation",
    "ContinualEP",
    "Contrast",
    "ContrastiveHebbianLearning",
    "CoupledLearning",
    "DualPropagation",
    "EquilibriumPropagation",
    "Estimate",
    "Estimator",
    "FourPointEquilibriumPropagation",
    "HolomorphicEquilibriumPropagation",
    "ImplicitDifferentiation",
    "RandomSignEquilibriumPropagation",
]
