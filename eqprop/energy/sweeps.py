"""The seam for solvers that move one layer at a time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from eqprop.connection import Op
from eqprop.cost import CEnergy
from eqprop.energy.state import Buffers, State


class LayerSweeps:
    """What an energy may define, in closed form, for layer-by-layer solvers."""

    own_curvature = 1.0
    """∂²E/∂u² of a unit by itself: a Newton step never divides by less."""

    if TYPE_CHECKING:  # what EnergyBasedModel provides
        c_energy: CEnergy
        clamp_du: list[bool]
        n_layers: int

        buffers_of: Buffers

        @property
        def u(self) -> State: ...

    def begin_sweeps(self) -> None:
        """Called once before layers are moved one at a time."""
        return

    def layer_ops(self, i: int, grad: Tensor, curvature: Tensor) -> list[Op]:
        """Operations that write ∂F/∂u[i] and the diagonal of ∂²F/∂u[i]².

        Raises:
            NotImplementedError: if the energy has no closed form for its curvature.
        """
        raise NotImplementedError(f"{type(self).__name__} has no layer_ops: choose dynamics=euler")

    def minimise_layer_(self, i: int, share: float = 1.0) -> None:
        """Move layer ``i`` by this share of the way to the minimum of F given the others.

        Raises:
            NotImplementedError: if it is not.
        """
        name = type(self).__name__
        raise NotImplementedError(f"{name} has no minimise_layer_: choose dynamics=euler")

    def moved_ops(self, i: int) -> list[Op]:
        """Operations to do after layer ``i`` was moved alone."""
        return []

    def nudging_cost(self) -> CEnergy | None:
        """The cost that nudges; None where no target is set or the last layer is clamped."""
        if self.c_energy.target is None or self.clamp_du[-1]:
            return None
        return self.c_energy

    def nudge_descent(self, step: float) -> tuple[list[Op], list[Op]]:
        """Operations that compute the cost's pull on the last layer, and that move it by it."""
        cost = self.nudging_cost()
        if cost is None:
            return [], []
        u, nudge = self.u[-1], self.buffers_of("nudge")[-1]
        ops, factor = cost.gradient_ops(u, nudge)
        return ops, [partial(u.sub_, nudge, alpha=step * factor)]

    def nudge_ops(self, i: int, grad: Tensor, curvature: Tensor) -> list[Op]:
        """Operations that add the cost's gradient and curvature where layer ``i`` is nudged."""
        cost = self.nudging_cost() if i == self.n_layers - 1 else None
        if cost is None:
            return []
        u, nudge = self.u[-1], self.buffers_of("nudge")[-1]
        return [
            partial(cost.gradient, u, nudge),
            partial(grad.add_, nudge),
            partial(cost.curvature, u, nudge),
            partial(curvature.add_, nudge),
        ]
