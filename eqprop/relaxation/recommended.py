"""The solver that is recommended for a network."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge, Gt
from typing_extensions import Doc

from eqprop.network import Network
from eqprop.relaxation.euler import Euler
from eqprop.relaxation.solver import Init, Solver, TimeConstant, Tolerance
from eqprop.relaxation.sweep import Newton


def recommended_solver(
    network: Network,
    dt: Annotated[
        Annotated[float, Gt(0)] | None,
        Doc("step size, in the unit of tau (null: the chosen solver's own)"),
    ] = None,
    tau: TimeConstant = 1.0,
    n_relax: Annotated[
        Annotated[int, Ge(1)] | None,
        Doc("steps or sweeps of the free phase at most (null: the chosen solver's own)"),
    ] = None,
    n_nudged: Annotated[
        Annotated[int, Ge(1)] | None,
        Doc("steps or sweeps of a nudged phase at most (null: as n_relax, or the solver's own)"),
    ] = None,
    tol: Tolerance = 0.0,
    init: Init = "auto",
) -> Solver:
    """Newton sweeps where the energy is given by local terms, else 25 Euler steps of 0.2.

    Args:
        network: what is to be relaxed.
        dt, n_relax, n_nudged: None leaves them to the solver that is chosen.
        tau, tol, init: see :class:`Solver`.
    """
    given: dict[str, Any] = {"dt": dt, "n_relax": n_relax, "n_nudged": n_nudged or n_relax}
    keys: dict[str, Any] = {"tau": tau, "tol": tol, "init": init}
    keys |= {key: value for key, value in given.items() if value is not None}
    if network.layerwise:
        return Newton(**keys)
    return Euler(**{"dt": 0.2, "n_relax": 25, **keys})
