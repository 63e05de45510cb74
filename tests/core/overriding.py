"""Subclasses of ours with one method changed, and one batch trained with them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from networks import joined
from torch import Tensor

from eqprop.estimator import EquilibriumPropagation
from eqprop.network import (
    Conv,
    Dense,
    Edge,
    Hopfield,
    Identity,
    Network,
    RateHopfield,
    SquaredError,
)
from eqprop.network.activation import Activation, as_activation, one_a_layer
from eqprop.network.local import Quadratic
from eqprop.network.model import EnergyBasedModel
from eqprop.relaxation import Anderson, Euler, Exact, Newton, Solver, Sweep

WAYS: dict[str, dict[str, Any]] = {
    "euler": {"solver": Euler, "dt": 0.2, "n_relax": 4},
    "euler_tol": {"solver": Euler, "dt": 0.2, "n_relax": 4, "tol": 1e-12},
    "adaptive": {"solver": Euler, "dt": 0.2, "n_relax": 4, "adaptive": True},
    "anderson": {"solver": Anderson, "n_relax": 4},
    "newton": {"solver": Newton, "n_relax": 3},
    "forward": {"solver": Sweep, "order": "forward", "n_relax": 3},
    "exact": {"solver": Exact, "n_relax": 3},
    "projected": {"solver": Sweep, "rule": "projected", "order": "even_odd", "n_relax": 3},
}
"""Solvers, and the settings that they are made with."""
SIZES = [4, 6, 3]


def edges_by(edge: type[Edge]) -> list[Edge]:
    """A chain with edges of that class."""
    if issubclass(edge, Conv):
        first = edge((2, 4, 4), 3, kernel=3, padding=1, pool="max")
        return [first, edge((3, 2, 2), 2, kernel=2), Dense((2, 1, 1), 3)]
    if issubclass(edge, Identity):
        return [Dense((4,), 6), edge((6,)), Dense((6,), 3)]
    return [edge((4,), 6), edge((6,), 3)]


def altered(cls: type, name: str) -> type:
    """A subclass of ``cls`` whose method ``name``, and no other, computes something else."""
    original = getattr(cls, name)
    change = BY_NAME.get(f"network.{name}" if issubclass(cls, Network) else name, _change_result)
    signature = list(inspect.signature(original).parameters)

    def method(self: Any, *args: Any, **keys: Any) -> Any:
        given = dict(zip(signature, (self, *args), strict=False)) | keys
        return change(lambda: original(self, *args, **keys), given)

    return type(f"My{cls.__name__}", (cls,), {name: method})


def _change_result(original: Callable[[], Any], given: dict[str, Any]) -> Any:
    """What it writes or returns, 1.3 times that and a bit."""
    found, out = original(), given.get("out")
    if isinstance(out, Tensor):
        if found is None and "r" not in given:  # a term that is zero
            return out.fill_(0.3)
        out.copy_((out if found is None else found) * 1.3 + 0.05)
        return None if found is None else out
    if isinstance(out, list):
        for tensor in out:
            tensor.mul_(1.3).add_(0.05)
        return None
    if isinstance(found, Quadratic):
        return Quadratic(found.w * 1.3 + 0.1, found.v * 1.3 + 0.1)
    if isinstance(found, list | tuple):
        return type(found)(None if g is None else g.mul_(1.3) for g in found)
    if "d" in given:  # an energy of one unit
        return found * 1.3 + 0.05 * given["u"]
    return found * 1.3 + 0.05


def _move_on(original: Callable[[], Any], given: dict[str, Any]) -> Any:
    """Of a solver: the hidden layer a bit further."""
    found, state = original(), given["state"]
    state.u[1].mul_(1.1).add_(0.05)
    state.moved(1)
    return found


def _in_place(name: str, change: Callable[[Tensor], object]) -> Callable[..., Any]:
    def method(original: Callable[[], Any], given: dict[str, Any]) -> Any:
        found = original()
        change(given[name] if name != "s" else given[name].u)
        return found

    return method


def _once_known(known: str) -> Callable[..., Any]:
    """Of a network: what a buffer of the state holds, when it is computed."""

    def method(original: Callable[[], Any], given: dict[str, Any]) -> Any:
        state, layer = given["state"], given["layer"]
        before, found = getattr(state, known)[layer], original()
        return found if before or found is state.u[layer] else found.mul_(1.2).add_(0.1)

    return method


def _site(original: Callable[[], Any], given: dict[str, Any]) -> Any:
    site = original()
    return site._replace(p=torch.full_like(site.u, 0.3) if site.p is None else site.p * 1.3)


def _steeper(phi: Activation) -> Activation:
    return as_activation(lambda u: 1.3 * phi(u) + 0.05 * u)


BY_NAME: dict[str, Callable[..., Any]] = {
    "input_term": lambda original, given: 0.4 * given["u"].square().square(),
    "descend": _in_place("s", lambda u: u.mul_(1.1)),
    "at_kinks_": _in_place("grad", lambda grad: grad.add_(0.2)),
    "within_piece_": _in_place("new", lambda new: new.mul_(0.9)),
    "bounds": lambda original, given: (-0.2, 0.2),
    "domain": lambda original, given: (-0.2, 0.2),
    "primitive": lambda original, given: 50.0 * original(),
    "rate_phi": lambda original, given: _steeper(original()),
    "network.rate": _once_known("rate_known"),
    "network.drive": _once_known("drive_known"),
    "network.site": _site,
    "network.energies": lambda original, given: -original(),
    "network.layer_gradient": lambda original, given: original().mul_(1.3),
    "network.feed_forward": _move_on,
    "network.nudge_at": lambda original, given: None,
} | dict.fromkeys(
    (
        *("step", "steps", "advance", "step_and_measure", "move_layer", "begin"),
        *("initialise", "feed_forward", "free_phase", "relax"),
    ),
    _move_on,
)


def train(
    way: str,
    *,
    local: type = Hopfield,
    phi: Any = "tanh",
    edge: type = Dense,
    cost: type = SquaredError,
    solver: type[Solver] | None = None,
    network: type = Network,
    free_input: bool = False,
    dtype: torch.dtype = torch.float64,
    loops: bool = False,
) -> list[Tensor] | str:
    """State and gradient of one batch; or, in words, why the solver refuses the network."""
    torch.default_generator.manual_seed(4)
    edges = [joined(made, i, i + 1) for i, made in enumerate(edges_by(edge))]
    phis = one_a_layer([as_activation(phi)] * len(edges), len(edges) + 1)
    if issubclass(network, EnergyBasedModel):
        model = network(SIZES, cost(), 3, phis)
    else:
        shapes = [edges[0].in_shape, *(made.out_shape for made in edges)]
        model = network(shapes, phis, edges, local())
    model = model.to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    state = model.new_state(3, torch.Generator().manual_seed(6))
    state.clamp(0, torch.randn(3, *model.shapes[0], dtype=torch.float64))
    if free_input:
        state.release(0)
    keys = {key: value for key, value in WAYS[way].items() if key != "solver"}
    if issubclass(local, RateHopfield):  # a normal start would lie outside its domain
        keys["init"] = "zeros"
    chosen = (solver or WAYS[way]["solver"])(**keys)
    chosen.compiled = loops
    try:
        chosen.check(model)
        if free_input:  # of which no gradient is estimated
            chosen.relax(model, state, None, 2)
            return [layer.clone() for layer in state.u]
        found = EquilibriumPropagation(0.5).estimate(
            model, state, chosen, cost(), torch.eye(3, dtype=dtype)
        )
    except ValueError as refusal:
        return str(refusal)
    return [*(layer.clone() for layer in state.u), *(g.clone() for g in found.gradients)]


def differ(found: list[Tensor] | str, before: list[Tensor] | str) -> bool:
    """Whether another state or gradient came out; a solver that no longer can has said so."""
    assert not isinstance(before, str), before
    if isinstance(found, str):
        return True
    assert all(bool(a.isfinite().all()) for a in found)
    return any(bool((a - b).abs().max() > 1e-10) for a, b in zip(found, before, strict=True))
