"""How the state moves to equilibrium: the solvers, and the result of a phase."""

from eqprop.relaxation.anderson import Anderson
from eqprop.relaxation.euler import Euler
from eqprop.relaxation.recommended import recommended_solver
from eqprop.relaxation.result import Relaxation, StopReason
from eqprop.relaxation.settings import Init
from eqprop.relaxation.solver import Solver
from eqprop.relaxation.sweep import Exact, Newton, Sweep

__all__ = [
    "Anderson",
    "Euler",
    "Exact",
    "Init",
    "Newton",
    "Relaxation",
    "Solver",
    "StopReason",
    "Sweep",
    "recommended_solver",
]
