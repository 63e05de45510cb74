"""What a user overrides is what trains: every class of ours, each method alone overridden.

Each override changes what its method computes. One batch is then trained in several ways, and the
override must show: in the state, or in the gradient.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import pytest
import torch
from networks import assert_by_autograd, build, gradient_by_autograd, random_nudge, random_state
from overriding import WAYS, altered, differ, train

from eqprop import ConditionalGaussian, CrossEntropy, EnergyBasedModel, RestrictedHopfield
from eqprop.network import (
    Conv,
    Cost,
    Dense,
    Gaussian,
    Hopfield,
    Identity,
    LocalEnergy,
    Network,
    PredictiveCoding,
    RateHopfield,
    SquaredError,
)
from eqprop.network.activation import ACTIVATIONS, Activation
from eqprop.relaxation import Anderson, Euler, Exact, Newton, Sweep, compiled

EULERS = ("euler", "euler_tol", "adaptive")
NEWTONS = ("newton", "forward")
SWEEPS = (*NEWTONS, "exact", "projected")
ALL = (*EULERS, *SWEEPS, "anderson")
UNSEEN = tuple(way for way in ALL if way != "euler_tol")
"""Ways that ask for no residual."""

SHOWS: dict[str, dict[str, tuple[str, ...]]] = {
    "local": {
        "value": ALL,
        "signal": ALL,
        "state_term": ALL,
        "rate_term": ALL,
        "stiffness": NEWTONS,
        "curvature": NEWTONS,
        "descend": ("euler",),
        "minimise": ("exact",),
        "project": ("projected",),
        "forward": (*EULERS, *NEWTONS),
        "rate_phi": ALL,
        "domain": (*EULERS, *NEWTONS, "anderson"),
        "input_term": ("euler", "newton"),
    },
    "phi": {
        "__call__": ALL,
        "value_": ALL,
        "pullback": ALL,
        "slope_": NEWTONS,
        "second_pullback": NEWTONS,
        "at_kinks_": (*EULERS, *NEWTONS, "anderson"),
        "within_piece_": NEWTONS,
        "inverse": (*EULERS, *NEWTONS, "anderson"),
        "primitive": ("adaptive", "anderson"),
    },
    "edge": {
        "forward": ALL,
        "drive": ALL,
        "pull": ALL,
        "gradient": ALL,
        "squared_norm": NEWTONS,
        "shaped_bias": ALL,
    },
    "cost": {
        "cost": ALL,
        "gradient": ALL,
        "curvature": NEWTONS,
        "quadratic": ("exact",),
        "compute_energy": ALL,
    },
    "network": {
        "energy": ALL,
        "driven": ALL,
        "energies": ("adaptive", "anderson"),
        "rate": tuple(way for way in ALL if way != "projected"),
        "drive": ALL,
        "signal": ALL,
        "site": ALL,
        "gradient": ALL,
        "layer_gradient": ALL,
        "nudge_at": ALL,
        "newton_terms": (*EULERS, *NEWTONS, "anderson"),
        "norm": NEWTONS,
        "feed_forward": ALL,
    },
    "solver": {
        "step": ALL,
        "steps": UNSEEN,
        "advance": UNSEEN,
        "step_and_measure": ("euler_tol",),
        "gradient": (*EULERS, "anderson"),
        "bounds": EULERS,
        "move_layer": SWEEPS,
        "begin": ALL,
        "initialise": ALL,
        "feed_forward": ALL,
        "free_phase": ALL,
        "relax": ALL,
    },
}
"""For each part of a training and each of its methods, the ways in which an override must show."""

CLASSES: dict[str, list[type]] = {
    "local": [Gaussian, Hopfield, PredictiveCoding, RateHopfield],
    "phi": [type(phi) for phi in ACTIVATIONS.values()],
    "edge": [Dense, Conv, Identity],
    "cost": [SquaredError, CrossEntropy],
    "network": [Network, ConditionalGaussian, RestrictedHopfield],
    "solver": [Euler, Sweep, Newton, Exact, Anderson],
}
OF_NO_NUMBER = {
    *("check", "check_config", "capture_obstacle", "use_compiled_loops", "trace", "moved"),
    *("new_state", "compile_energy", "use_channels_last", "set_target", "weights", "extra_repr"),
    "move",  # describes a step to the compiled loops
    "next",  # the differentiable step, which no phase of ours takes
    *("feeds_forward", "first", "suit"),  # say where a phase starts, and fill in open settings
    "seeks_equilibrium",
    *("complex_obstacle", "least_nudge"),  # say what it cannot do
    *("network.forward", "network.predict", "network.feed_forward_output"),  # answers
    "of_output",  # chooses terms
    *("network.field", "network.field_parts", "edge.adjoint"),  # the differentiable field
}
"""Methods that no phase takes a number from."""
FEEDFORWARD_ONLY = {"slope_", "squared_norm", "norm", "feed_forward", "forward"}
"""They serve the curvature of energies with a feed-forward pass, and that pass."""
PROJECTED = (PredictiveCoding, RateHopfield)
FEW = ("euler", "newton", "exact", "projected")
ALL_WAYS = {Gaussian, Hopfield, Dense, type(ACTIVATIONS["tanh"]), SquaredError, Network}
"""Of a part's other classes a few ways are enough."""


def local_beside(part: str, cls: type, name: str, way: str) -> type[LocalEnergy] | None:
    """The energy to train it with; None where the method has nothing to do."""
    given = {ConditionalGaussian: Gaussian, RestrictedHopfield: Hopfield}.get(cls, cls)
    if not issubclass(given, LocalEnergy):
        feeds = name in FEEDFORWARD_ONLY and (part, name) != ("edge", "forward")
        given = PredictiveCoding if way == "projected" else Gaussian if feeds else Hopfield
        given = RateHopfield if name in ("inverse", "primitive") else given
    elif name in FEEDFORWARD_ONLY and given in (Hopfield, RateHopfield):
        return None
    able = {"exact": (Hopfield, RateHopfield), "projected": PROJECTED}
    return given if given in able.get(way, (given,)) else None


def idle(part: str, cls: type, name: str, way: str) -> bool:
    """Whether a method has nothing to do there."""
    if part == "solver":
        return cls is not WAYS[way]["solver"] or not hasattr(cls, name)
    if part == "phi":
        phi = next(phi for phi in ACTIVATIONS.values() if type(phi) is cls)
        if way == "exact" and not phi.pieces:
            return True
        if name in ("inverse", "primitive"):
            at_its_bounds = ("sigmoid", "shifted_sigmoid")
            return cls.inverse is Activation.inverse or phi.name in at_its_bounds
        return name in ("at_kinks_", "within_piece_") and phi.name != "hard_sigmoid"
    if cls is Identity:
        return name in ("gradient", "shaped_bias")
    return cls is CrossEntropy and way == "exact"


def parts_beside(part: str, cls: type, name: str, way: str) -> dict[str, Any] | None:
    """What to train it with; None where the method has nothing to do."""
    local = local_beside(part, cls, name, way)
    few = part in ("local", "phi", "edge", "cost", "network") and cls not in ALL_WAYS
    if local is None or idle(part, cls, name, way):
        return None
    if few and way not in FEW and set(SHOWS[part][name]) & set(FEW):
        return None
    exact = "relu" if local is RateHopfield else "leaky_relu"
    found: dict[str, Any] = {"phi": exact if way == "exact" else "tanh"}
    return found | {"local": local, "free_input": name == "input_term"}


CASES = [
    (part, cls, name, way)
    for part, methods in SHOWS.items()
    for cls in CLASSES[part]
    for name, ways in methods.items()
    for way in ways
    if parts_beside(part, cls, name, way) is not None
]
IDS = ["-".join([case[1].__name__, *case[2:]]) for case in CASES]
each_case = pytest.mark.parametrize(("part", "cls", "name", "way"), CASES, ids=IDS)


def trained(part: str, cls: type, name: str | None, way: str, **how: Any) -> Any:
    """What comes out with the method overridden; None: with the class as it is."""
    mine = cls if name is None else altered(cls, name)
    return train(way, **how | {part: mine() if part == "phi" else mine})


@cache
def as_it_is(part: str, cls: type, way: str, **beside: Any) -> Any:
    return trained(part, cls, None, way, **beside)


@each_case
def test_an_override_shows(part, cls, name, way):
    beside = parts_beside(part, cls, name, way)
    before = as_it_is(part, cls, way, **beside)
    assert differ(trained(part, cls, name, way, **beside), before)


@pytest.mark.parametrize("part", CLASSES)
def test_no_method_is_left_out(part):
    """One that is new has to say above where an override of it shows."""
    found = set()
    for cls in (Network,) if part == "network" else CLASSES[part]:
        for base in cls.__mro__:
            if base.__module__.startswith("eqprop."):
                found |= {n for n, value in vars(base).items() if inspect.isroutine(value)}
    public = {name for name in found if not name.startswith("_")} | {"__call__"} & found
    public -= {"__call__"} if part == "edge" else set()  # what an energy of one's own calls
    public -= {name for name in public if f"{part}.{name}" in OF_NO_NUMBER}
    assert public - OF_NO_NUMBER == set(SHOWS[part])


@pytest.mark.parametrize("way", ["euler", "newton"])
def test_compiled_loops_keep_off_what_is_overridden(way):
    """They change no bit of a training with any one method overridden."""
    compiled.load()
    how: dict[str, Any] = {"phi": "tanh", "dtype": torch.float32}
    plain, loops = (train(way, loops=loops, **how) for loops in (False, True))
    assert any(not torch.equal(a, b) for a, b in zip(plain, loops, strict=True))  # else no loops
    for part, cls, name, of_way in CASES:
        if of_way == way and name not in AROUND_A_PHASE:
            how = parts_beside(part, cls, name, way) | {"dtype": torch.float32}
            if how["local"] in PROJECTED or cls in (Conv, Identity):
                continue  # no loops for these
            plain, loops = (
                trained(part, cls, name, way, loops=loops, **how) for loops in (False, True)
            )
            if isinstance(plain, str):  # refused
                assert plain == loops
                continue
            for one, other in zip(plain, loops, strict=True):
                # (a free phase of our own classes may be compiled, whatever the cost is)
                same = torch.allclose(one, other, atol=1e-4 if part == "cost" else 0, rtol=0)
                assert same, (cls, name)


AROUND_A_PHASE = {"begin", "initialise", "feed_forward", "free_phase", "relax", "advance"}
"""With these of a solver overridden, its steps may still be compiled ones."""

SOURCES = [
    *(("local", cls, name) for cls in CLASSES["local"] for name in ("value", "input_term")),
    *(("phi", cls, "__call__") for cls in CLASSES["phi"]),
    ("edge", Dense, "forward"),
    *(("cost", cls, "cost") for cls in CLASSES["cost"]),
    *(("network", cls, "energy") for cls in (Network,)),
]


SOURCES_BESIDE = [
    (*source, local)
    for source in SOURCES
    for local in ((source[1],) if source[0] == "local" else (Gaussian, Hopfield))
]


@pytest.mark.parametrize(("part", "cls", "name", "local"), SOURCES_BESIDE)
def test_every_gradient_is_that_of_the_overridden_energy(part, cls, name, local):
    """State gradient, curvature, weight gradient, and the steps of Euler, by autograd."""
    mine = altered(cls, name)
    local = mine if part == "local" else local
    phi = mine() if part == "phi" else "tanh"
    edge = mine if part == "edge" else Dense
    network = build(local(), phi, edge=edge, network=mine if part == "network" else Network)
    nudge = random_nudge(network, (mine if part == "cost" else SquaredError)())
    for clamped in ((0,), (), (0, 2)):
        state = random_state(network, clamped=clamped)
        # (of an edge known by its function, the curvature is a bound)
        assert_by_autograd(network, state, nudge, curvature=part != "edge")
        u = [layer.clone() for layer in state.u]
        for _ in range(3):
            gradient = gradient_by_autograd(network, u, nudge)
            for layer in state.free:
                domain = network.terms[layer].domain(network.phi[layer])
                u[layer] = (u[layer] - 0.1 * gradient[layer]).clamp(*domain)
        Euler(0.1).relax(network, state, nudge, 3)
        for found, wanted in zip(state.u, u, strict=True):
            torch.testing.assert_close(found, wanted)


def test_verbs_of_the_facade_go_by_what_is_overridden(pair, targets):
    """``u_relax`` by ``u_step``, both by ``nudge`` and ``energy``."""
    model, _ = pair("hopfield", [4, 6, 3], 3, "tanh")

    class Still(RestrictedHopfield):
        def u_step(self, dt, tau):
            return 0.5

    class Unmoved(RestrictedHopfield):
        def nudge(self):
            return None

    before = [layer.clone() for layer in model.u]
    model.__class__ = Still
    assert model.u_relax(0.1, 5, 0.0, 1.0) == 0.0
    model.__class__ = Unmoved
    free = model.E
    model.set_C_target(targets(3, 3))
    assert torch.equal(model.E, free)
    model.__class__ = type("Own", (EnergyBasedModel,), {"energy": lambda self, u: u[1].sum(1)})
    model.u_step(0.1, 1.0)
    torch.testing.assert_close(model.u[1], before[1] - 0.1)


@pytest.mark.parametrize("base", [Cost, LocalEnergy, Activation])
def test_an_override_by_a_mixin_shows_as_well(base):
    part, cls, name, way = {
        Cost: ("cost", CrossEntropy, "cost", "newton"),
        LocalEnergy: ("local", Hopfield, "value", "euler"),
        Activation: ("phi", type(ACTIVATIONS["tanh"]), "__call__", "newton"),
    }[base]
    method = vars(altered(cls, name))[name]
    mixed = type("Mixed", (type("Mixin", (), {name: method}), cls), {})
    found = train(way, **{part: mixed() if part == "phi" else mixed})
    wanted = trained(part, cls, name, way)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
