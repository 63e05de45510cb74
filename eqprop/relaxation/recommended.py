"""The solver that is recommended for a network."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge, Gt
from typing_extensions import Doc

from eqprop.network import LocalEnergy, Network
from eqprop.relaxation.euler import Euler
from eqprop.relaxation.settings import Init, TimeConstant, Tolerance
from eqprop.relaxation.solver import Solver
from eqprop.relaxation.sweep import Newton, Sweep


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
    """The solver that suits the energy.

    Projected sweeps of every second layer where the energy has that rule, and the rate is the state
    or the activations are projections (of predictive coding as many as there are layers, which
    makes the nudged phase backpropagation); else Newton sweeps where it is given by local terms;
    else 25 Euler steps of 0.2.

    Args:
        network: what is to be relaxed.
        dt, n_relax, n_nudged: None leaves them to the solver that is chosen.
        tau, tol, init: see :class:`Solver`.
    """
    given: dict[str, Any] = {"dt": dt, "n_relax": n_relax, "n_nudged": n_nudged or n_relax}
    keys: dict[str, Any] = {"tau": tau, "tol": tol, "init": init}
    keys |= {key: value for key, value in given.items() if value is not None}
    projections = all(phi.unit_slopes for phi in network.phi[1:])
    own = type(network.local).project is not LocalEnergy.project
    if network.layerwise and own and (network.local.acts_on_drive or projections):
        sweeps = {"n_relax": 20, "n_nudged": network.n_layers - 1 if network.feedforward else 8}
        return Sweep("projected", "even_odd", **{**sweeps, **keys})
    if network.layerwise:
        return Newton(**keys)
    return Euler(**{"dt": 0.2, "n_relax": 25, **keys})
