"""Which phases run, and how they give a gradient."""

from eqprop.estimator.backprop import Backprop
from eqprop.estimator.contrast import (
    CenteredEquilibriumPropagation,
    Contrast,
    EquilibriumPropagation,
)
from eqprop.estimator.estimator import Estimate, Estimator

__all__ = [
    "Backprop",
    "CenteredEquilibriumPropagation",
    "Contrast",
    "EquilibriumPropagation",
    "Estimate",
    "Estimator",
]
