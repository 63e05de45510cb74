"""How the state moves to equilibrium: one solver a file, one result object."""

from eqprop.relaxation.anderson import Anderson
from eqprop.relaxation.auto import Auto
from eqprop.relaxation.base import Init, Solver
from eqprop.relaxation.euler import Euler
from eqprop.relaxation.exact import Exact
from eqprop.relaxation.newton import Newton
from eqprop.relaxation.result import Relaxation, StopReason

__all__ = [
    "Anderson",
    "Auto",
    "Euler",
    "Exact",
    "Init",
    "Newton",
    "Relaxation",
    "Solver",
    "StopReason",
]
