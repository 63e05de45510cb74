"""Steps recorded once a phase and replayed on buffers that never move."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from eqprop.connection import Op
from eqprop.energy import EnergyBasedModel
from eqprop.relaxation import fused, loops
from eqprop.relaxation.base import Solver


class ReplayedSolver(Solver):
    """A solver whose step is a fixed list of operations with their tensors bound.

    Recording them once a phase leaves nothing to look up in a step, which on small layers costs as
    much as the arithmetic.
    """

    def compile_for(self, model: EnergyBasedModel) -> None:
        if self.move() is not None and self.tol <= 0 and fused.fits(model):
            fused.compile_loops()
            self.compiled = True

    _ops: list[Op] | None = None

    def begin(self, model: EnergyBasedModel) -> None:
        self._ops = None

    @abstractmethod
    def plan(self, model: EnergyBasedModel) -> list[Op]:
        """The operations of one step."""

    def move(self) -> loops.Move | None:
        """What the compiled loop has to do in a step, if it can."""
        return None

    def feed_forward(self, model: EnergyBasedModel) -> None:
        if self.compiled and fused.applies(model):
            loops.feedforward(model)
        else:
            super().feed_forward(model)

    def advance(self, model: EnergyBasedModel, work: list[Tensor | None], n_steps: int) -> None:
        move = self.move() if self.compiled else None
        if move is not None and fused.applies(model):
            loops.relax(model, move, n_steps)
        else:
            super().advance(model, work, n_steps)

    def step(self, model: EnergyBasedModel, work: list[Tensor | None], measure: bool) -> None:
        if self._ops is None:
            self._ops = self.plan(model)
        for op in self._ops:
            op()
