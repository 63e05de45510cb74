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
        dt: the share of the way to the minimum, in units of tau; 1 goes all the way.
    """

    default_init: Init = "zeros"

    def __init__(
        self,
        n_relax: int = 10,
        n_nudged: int | None = None,
        tol: float = 0.0,
        init: Init = "auto",
        dt: float = 1.0,
        tau: float = 1.0,
    ) -> None:
        super().__init__(n_relax, n_nudged, tol, init, dt, tau)

    def for_model(self, model: EnergyBasedModel) -> Solver:
        require(model, "minimise_layer_", "exact")
        return super().for_model(model)

    def begin(self, model: EnergyBasedModel) -> None:
        model.begin_sweeps()

    def step(self, model: EnergyBasedModel, work: list[Tensor | None], measure: bool) -> None:
        if measure:
            model.total_gradient(work)
        for i in range(model.n_layers - 1, -1, -1):
            if work[i] is not None:
                model.minimise_layer_(i, self.dt / self.tau)
                for op in model.moved_ops(i):
                    op()
