"""The solver that is recommended for an energy."""

from __future__ import annotations

from torch import Tensor

from eqprop.energy import EnergyBasedModel
from eqprop.relaxation.base import Init, Solver, defines
from eqprop.relaxation.euler import Euler
from eqprop.relaxation.newton import Newton


class Auto(Solver):
    """Newton where the energy has its curvature in closed form, else 25 Euler steps of 0.2.

    Args:
        dt, n_relax, n_nudged: None leaves them to the solver that is chosen.
        tau, tol, init: see :class:`Solver`.
    """

    def __init__(
        self,
        dt: float | None = None,
        tau: float = 1.0,
        n_relax: int | None = None,
        n_nudged: int | None = None,
        tol: float = 0.0,
        init: Init = "auto",
    ) -> None:
        super().__init__(n_relax or 1, n_nudged, tol, init, dt or 1.0, tau)
        given = {"dt": dt, "n_relax": n_relax, "n_nudged": n_nudged}
        self._given = {key: value for key, value in given.items() if value is not None}
        if n_relax is not None and n_nudged is None:
            self._given["n_nudged"] = n_relax

    def for_model(self, model: EnergyBasedModel) -> Solver:
        shared = {"tau": self.tau, "tol": self.tol, "init": self.init, **self._given}
        if defines(model, "layer_ops"):
            return Newton(**shared).for_model(model)  # type: ignore[arg-type]
        return Euler(**{"dt": 0.2, "n_relax": 25, **shared}).for_model(model)  # type: ignore[arg-type]

    def step(self, model: EnergyBasedModel, work: list[Tensor | None], measure: bool) -> None:
        raise TypeError("Auto only chooses a solver: call for_model(model) first")
