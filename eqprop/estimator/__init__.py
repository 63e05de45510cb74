"""Which phases run, and how they give a gradient."""

from eqprop.estimator.base import Estimate, Estimator
from eqprop.estimator.ep import CenteredEquilibriumPropagation, EquilibriumPropagation

__all__ = [
    "CenteredEquilibriumPropagation",
    "EquilibriumPropagation",
    "Estimate",
    "Estimator",
]
