"""Equilibrium propagation in PyTorch: energies, solvers, estimators, and a runner around them.

The names below load torch when they are first used, so that the command line can answer
(``--help``, a wrong key) without paying for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from eqprop.run.version import __version__ as __version__

if TYPE_CHECKING:
    from eqprop.network import (
        CEnergy,
        ConditionalGaussian,
        CrossEntropy,
        EnergyBasedModel,
        RestrictedHopfield,
        SquaredError,
    )
    from eqprop.training.load import load

_HOME = {
    "CEnergy": "eqprop.network",
    "CrossEntropy": "eqprop.network",
    "SquaredError": "eqprop.network",
    "ConditionalGaussian": "eqprop.network",
    "EnergyBasedModel": "eqprop.network",
    "RestrictedHopfield": "eqprop.network",
    "load": "eqprop.training.load",
}

__all__ = [
    "CEnergy",
    "ConditionalGaussian",
    "CrossEntropy",
    "EnergyBasedModel",
    "RestrictedHopfield",
    "SquaredError",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'eqprop' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
