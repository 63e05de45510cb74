"""Layer by layer, each put at its minimum given the others."""

from __future__ import annotations

from torch import Tensor

from eqprop.energy import EnergyBasedModel
from eqprop.relaxation.base import Init, Solver, require


class Exact(Solver):
    """``u[l] ← argmin F`` over one layer at a time, output layer first; a step is one sweep.

    The energy can never rise. It needs an energy with a closed form for that: the Hopfield energy
    with piecewise linear activations, and the squared error as the cost.

    Args:
        n_relax: sweeps of the free phase; the rest as :class:`Solver`.
    """

    default_init: Init = "zeros"

    def __init__(
        self,
        n_relax: int = 10,
        n_nudged: int | None = None,
        tol: float = 0.0,
        init: Init = "auto",
    ) -> None:
        super().__init__(n_relax, n_nudged, tol, init)

    def check(self, model: EnergyBasedModel) -> None:
        super().check(model)
        require(model, "minimise_layer_", "exact")

    def begin(self, model: EnergyBasedModel) -> None:
        model.begin_sweeps()

    def step(self, model: EnergyBasedModel, work: list[Tensor | None], measure: bool) -> None:
        if measure:
            model.total_gradient(work)
        for i in range(model.n_layers - 1, -1, -1):
            if work[i] is not None:
                model.minimise_layer_(i)
                model.layer_moved(i)
