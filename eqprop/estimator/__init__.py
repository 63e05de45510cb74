"""Which phases run, and how they give a gradient."""

from eqprop.estimator.contrast import (
    CenteredEquilibriumPropagation,
    Contrast,
    EquilibriumPropagation,
)
from eqprop.estimator.estimator import Estimate, Estimator

__all__ = [
    "CenteredEquilibriumPropagation",
    "Contrast",
    "EquilibriumPropagation",
    "Estimate",
    "Estimator",
]
