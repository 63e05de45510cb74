"""Steps recorded once a phase and replayed on buffers that never move."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from eqprop.connection import Op
from eqprop.energy import EnergyBasedModel
from eqprop.relaxation.base import Solver


class ReplayedSolver(Solver):
    """A solver whose step is a fixed list of operations with their tensors bound.

    Recording them once a phase leaves nothing to look up in a step, which on small layers costs as
    much as the arithmetic.
    """

    def begin(self, model: EnergyBasedModel) -> None:
        self._ops = self.plan(model)

    @abstractmethod
    def plan(self, model: EnergyBasedModel) -> list[Op]:
        """The operations of one step."""

    def step(self, model: EnergyBasedModel, work: list[Tensor | None], measure: bool) -> None:
        for op in self._ops:
            op()
