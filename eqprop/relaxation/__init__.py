"""How the state moves to equilibrium: one solver a file, one result object."""

from eqprop.relaxation.base import Init, Solver
from eqprop.relaxation.euler import Euler
from eqprop.relaxation.result import Relaxation, StopReason

__all__ = ["Euler", "Init", "Relaxation", "Solver", "StopReason"]
