"""The seam for solvers that move one layer at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from eqprop.cost import CEnergy
from eqprop.energy.state import State


class LayerSweeps:
    """What an energy may define, in closed form, for layer-by-layer solvers."""

    own_curvature = 1.0
    """∂²E/∂u² of a unit by itself: a Newton step never divides by less."""

    if TYPE_CHECKING:  # what EnergyBasedModel provides
        c_energy: CEnergy
        n_layers: int

        @property
        def u(self) -> State: ...
        def nudge(self) -> Tensor | None: ...

    def begin_sweeps(self) -> None:
        """Called once before layers are moved one at a time."""
        return

    def layer_derivatives_(self, i: int, grad: Tensor, curvature: Tensor) -> None:
        """Write ∂F/∂u[i] and the diagonal of ∂²F/∂u[i]² at the present state.

        Raises:
            NotImplementedError: if the energy has no closed form for its curvature.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no layer_derivatives_: choose dynamics=euler or anderson"
        )

    def minimise_layer_(self, i: int) -> None:
        """Put layer ``i`` at the minimum of F given the others, where that is a closed form.

        Raises:
            NotImplementedError: if it is not.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no minimise_layer_: choose dynamics=euler or anderson"
        )

    def layer_moved(self, i: int) -> None:
        """Called after layer ``i`` was moved alone."""
        return

    def add_nudge(self, i: int, grad: Tensor, curvature: Tensor) -> None:
        """Add the cost's gradient and curvature to those of layer ``i`` where it is nudged."""
        nudge = self.nudge() if i == self.n_layers - 1 else None
        if nudge is not None:
            grad.add_(nudge)
            curvature.add_(self.c_energy.curvature(self.u[-1], nudge))
