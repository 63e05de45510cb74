"""Equilibrium propagation in PyTorch: energies, solvers, estimators, and a runner around them.

The names below load torch when they are first used, so that the command line can answer
(``--help``, a wrong key) without paying for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from eqprop.run.version import __version__ as __version__

if TYPE_CHECKING:
    from eqprop.estimator import (
        AsymmetricEquilibriumPropagation,
        Backprop,
        BackpropThroughTime,
        CenteredEquilibriumPropagation,
        ContinualEP,
        Contrast,
        ContrastiveHebbianLearning,
        CoupledLearning,
        DualPropagation,
        EquilibriumPropagation,
        Estimate,
        Estimator,
        FourPointEquilibriumPropagation,
        HolomorphicEquilibriumPropagation,
        ImplicitDifferentiation,
        RandomSignEquilibriumPropagation,
    )
    from eqprop.network import (
        CEnergy,
        ConditionalGaussian,
        CrossEntropy,
        EnergyBasedModel,
        RestrictedHopfield,
        SquaredError,
    )
    from eqprop.relaxation import (
        Anderson,
        Euler,
        Exact,
        Newton,
        Relaxation,
        Solver,
        Sweep,
        recommended_solver,
    )
    from eqprop.training.load import (
        load,
    )
    from eqprop.training.predictor import (
        Predictor,
    )

_HOMES = ("network", "relaxation", "estimator", "training.predictor", "training.load")
"""Where they are looked for, in this order."""

__all__ = [
    "Anderson",
    "AsymmetricEquilibriumPropagation",
    "Backprop",
    "BackpropThroughTime",
    "CEnergy",
    "CenteredEquilibriumPropagation",
    "ConditionalGaussian",
    "ContinualEP",
    "Contrast",
    "ContrastiveHebbianLearning",
    "CoupledLearning",
    "CrossEntropy",
    "DualPropagation",
    "EnergyBasedModel",
    "EquilibriumPropagation",
    "Estimate",
    "Estimator",
    "Euler",
    "Exact",
    "FourPointEquilibriumPropagation",
    "HolomorphicEquilibriumPropagation",
    "ImplicitDifferentiation",
    "Newton",
    "Predictor",
    "RandomSignEquilibriumPropagation",
    "Relaxation",
    "RestrictedHopfield",
    "Solver",
    "SquaredError",
    "Sweep",
    "load",
    "recommended_solver",
]


def __getattr__(name: str) -> Any:
    for home in _HOMES if name in __all__ else ():
        module = importlib.import_module(f"eqprop.{home}")
        if hasattr(module, name):
            globals()[name] = getattr(module, name)
            return globals()[name]
    raise AttributeError(f"module 'eqprop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
