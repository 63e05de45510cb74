"""Euler on clipped states, its residual, and its differentiable step."""

from __future__ import annotations

import itertools

import pytest
import torch
from networks import (
    GRAPH,
    LOCALS,
    assert_close_lists,
    build,
    gradient_by_autograd,
    implicit_gradient,
    random_nudge,
    random_state,
)

from eqprop.estimator import CenteredEquilibriumPropagation
from eqprop.network import SquaredError
from eqprop.relaxation import Euler, Newton, StopReason

each_kind = pytest.mark.parametrize("kind", sorted(LOCALS))
each_unbounded = pytest.mark.parametrize("kind", sorted({*LOCALS} - {"rate_hopfield"}))
"""Energies that are finite everywhere."""
RANGES = {
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "relu": (0.0, float("inf")),
    "softplus": (0.0, float("inf")),
}


def projected(network, state, nudge, n, dt, bounds, inside=False):
    """Euler steps by autograd, each clamped; ``inside`` puts the start there."""
    u = [layer.clone() for layer in state.u]
    for _ in range(n):
        g = gradient_by_autograd(network, u, nudge)
        for i in state.free:
            low, high = bounds[i] or (float("-inf"), float("inf"))
            u[i] = (u[i] - dt * g[i]).clamp(low, high)
    return u


@each_unbounded
@pytest.mark.parametrize("nudged", [False, True])
@pytest.mark.parametrize("tol", [0.0, 1e-12])
@pytest.mark.parametrize("clip", [[-0.5, 0.3], [0, 1]], ids=str)
@pytest.mark.parametrize("phi", ["hard_sigmoid", "tanh"])
def test_clipped_steps(kind, nudged, tol, clip, phi):
    """By the layers' closed forms, and with a residual: the same."""
    network = build(LOCALS[kind](), phi, GRAPH)
    state = random_state(network)
    nudge = random_nudge(network) if nudged else None
    wanted = projected(network, state, nudge, 25, 0.1, [None, *[clip] * 3])
    Euler(0.2, 2.0, clip=clip, tol=tol).relax(network, state, nudge, 25)
    assert_close_lists(state.u, wanted)
    assert all(u.min() >= clip[0] and u.max() <= clip[1] for u in state.u[1:])


@each_unbounded
@pytest.mark.parametrize("phi", sorted(RANGES))
def test_auto_is_the_range_of_each_layers_own_activation(kind, phi):
    network = build(LOCALS[kind](), ["identity", phi, "tanh", "identity"])
    state, nudge = random_state(network, scale=3.0), random_nudge(network)
    bounds = [None, RANGES[phi], RANGES["tanh"], None]
    wanted = projected(network, state, nudge, 25, 0.1, bounds)
    Euler(0.1, clip="auto").relax(network, state, nudge, 25)
    assert_close_lists(state.u, wanted)


@pytest.mark.parametrize("clip", [None, [-0.5, 0.6]])
@pytest.mark.parametrize("phi", ["relu", "relu6", "hard_sigmoid", "tanh"])
def test_a_state_stays_where_its_energy_is_finite(phi, clip):
    """Of an energy with the inverse of φ, with and without a clip, which may be narrower."""
    network = build(LOCALS["rate_hopfield"](), phi, GRAPH)
    state, nudge = random_state(network), random_nudge(network)
    low, high = network.phi[1].range
    if clip is not None:
        low, high = max(low, clip[0]), min(high, clip[1])
    wanted = projected(network, state, nudge, 25, 0.1, [None, *[(low, high)] * 3])
    Euler(0.1, clip=clip).relax(network, state, nudge, 25)
    assert_close_lists(state.u, wanted)


@pytest.mark.parametrize("clip", [[1.0, 0.0], [0.5, 0.5], [0.0], [0.0, 0.5, 1.0], "range"])
def test_an_interval_that_is_none_is_refused(clip):
    with pytest.raises(ValueError, match=r"dynamics\.clip"):
        Euler(clip=clip)


@pytest.mark.parametrize("clip", [[0.0, 1.0], "auto"], ids=str)
@pytest.mark.parametrize("nudged", [False, True])
def test_the_residual_counts_what_can_still_move(clip, nudged):
    """The original EP: units come to rest at both bounds, and the tolerance is reached."""
    network = build(LOCALS["hopfield"](), "hard_sigmoid")
    with torch.no_grad():
        for edge in network.W:
            edge.weight.mul_(3.0)
    state, nudge = random_state(network, 20), random_nudge(network, batch=20) if nudged else None
    solver = Euler(0.3, n_relax=600, tol=1e-9, clip=clip)
    found = solver.relax(network, state, nudge, 600)
    assert found.reason is StopReason.CONVERGED
    raw = gradient_by_autograd(network, state.u, nudge)
    held = 0
    for u, g in zip(state.u[1:], raw[1:], strict=True):
        at_rest = ((u == 0) & (g > 1e-3)) | ((u == 1) & (g < -1e-3))
        held += int(at_rest.sum())
        assert g[~at_rest].abs().max() < 1e-7  # the residual is a mean over the batch
    assert held > 0
    assert solver.relax(network, state, nudge, 1, measure=True).residual < 1e-9


def test_newton_reaches_the_tolerance_where_units_rest_on_kinks():
    network = build(LOCALS["hopfield"](), "hard_sigmoid")
    with torch.no_grad():
        for edge in network.W:
            edge.weight.mul_(3.0)
    state, nudge = random_state(network, 20), random_nudge(network, batch=20)
    for wanted in (None, nudge):
        found = Newton(n_relax=400, n_nudged=400, tol=1e-9).relax(network, state, wanted, 400)
        assert found.reason is StopReason.CONVERGED
    assert any(bool(((u == 0) | (u == 1)).any()) for u in state.u[1:])


@each_kind
@pytest.mark.parametrize("clip", [None, [-0.5, 2.0], "auto"], ids=str)
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("start", ["zeros", "mixed"])
def test_asking_for_a_residual_changes_no_step(kind, clip, adaptive, start):
    """Also from a state on the kinks of hard_sigmoid."""
    network, ends = build(LOCALS[kind](), "hard_sigmoid", GRAPH), []
    with torch.no_grad():
        for edge in network.W:
            edge.weight.mul_(3.0)
    x, nudge = random_state(network).u[0], random_nudge(network)
    fill = {"zeros": [0.0] * 4, "mixed": [0.0, 1.0, 0.0, 1.0]}[start]
    for tol in (0.0, 1e-12):
        state = random_state(network)
        state.clamp(0, x)
        for layer, value in zip(state.u[1:], fill[1:], strict=True):
            layer.fill_(value)
        Euler(0.1, tol=tol, clip=clip, adaptive=adaptive).relax(network, state, nudge, 6)
        ends.append(state.u)
    assert_close_lists(*ends, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------- the differentiable step


@each_kind
@pytest.mark.parametrize("clip", [None, [-0.4, 0.6], "auto"], ids=str)
@pytest.mark.parametrize("nudged", [False, True])
def test_next_is_the_step(kind, clip, nudged):
    network = build(LOCALS[kind](), "tanh", GRAPH)
    state, solver = random_state(network), Euler(0.2, 2.0, clip=clip)
    nudge = random_nudge(network, "cross_entropy") if nudged else None
    before = [layer.clone() for layer in state.u]
    found = solver.next(network, list(state.u), nudge)
    assert_close_lists(state.u, before, rtol=0, atol=0)
    assert not any(layer.requires_grad for layer in state.u), "the arguments are left alone"
    with torch.no_grad():
        solver.step(network, state, nudge)
    assert_close_lists([layer.detach() for layer in found], state.u)


@each_kind
@pytest.mark.parametrize("clip", [None, [-0.6, 0.7]], ids=str)
def test_next_has_the_right_derivatives(kind, clip):
    """In the state, the weights, and the strength of the nudge."""
    network = build(LOCALS[kind](), "tanh", [(0, 1), (1, 2), (0, 2)], [(2,), (3,), (2,)])
    state, solver = random_state(network, 2), Euler(0.3, clip=clip)
    nudge = random_nudge(network, batch=2)
    parameters = list(network.parameters())
    x, *free = (layer.clone().requires_grad_() for layer in state.u)

    def twice(beta, *values):
        u = [x.detach(), *values[: len(free)]]
        for p, value in zip(parameters, values[len(free) :], strict=True):
            p.data = value.data
        names = [name for name, _ in network.named_parameters()]
        given = dict(zip(names, values[len(free) :], strict=True))
        moved = torch.func.functional_call(Stepper(network, solver), wrap(given), (u, nudge, beta))
        return tuple(moved[1:])

    values = [p.detach().clone().requires_grad_() for p in parameters]
    beta = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(twice, (beta, *free, *values))


class Stepper(torch.nn.Module):
    """Two steps, as a module whose parameters torch can swap."""

    def __init__(self, network, solver):
        super().__init__()
        self.network, self.solver = network, solver

    def forward(self, u, nudge, beta):
        for _ in range(2):
            u = self.solver.next(self.network, u, nudge._replace(beta=beta))
        return u


def wrap(parameters):
    return {f"network.{name}": value for name, value in parameters.items()}


@pytest.mark.estimators
@each_kind
def test_through_the_steps_to_equilibrium_autograd_gives_the_implicit_gradient(kind):
    """And EP's for a small β."""
    network, cost = build(LOCALS[kind](), "tanh", GRAPH), SquaredError()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.7)
    state, target = random_state(network), random_nudge(network).target
    solver = Euler(0.3, n_relax=1500, tol=1e-13, init="zeros")
    solver.free_phase(network, state)
    u = [layer.clone() for layer in state.u]
    for _ in range(400):
        u = solver.next(network, u, None)
    loss = cost.cost(u[-1], target).mean()
    unrolled = torch.autograd.grad(loss, list(network.parameters()))
    implicit = implicit_gradient(network, state, cost, target)
    assert_close_lists(unrolled, implicit, rtol=1e-6, atol=1e-9)
    ep = CenteredEquilibriumPropagation(1e-3)
    found = ep.estimate(network, state, solver, cost, target).gradients
    assert_close_lists(found, implicit, rtol=1e-3, atol=1e-5)


def test_clips_are_unlike_without():
    """So that the tests above test something."""
    ends = []
    for clip, phi in itertools.product((None, [0.0, 1.0]), ("hard_sigmoid",)):
        torch.manual_seed(2)
        network = build(LOCALS["hopfield"](), phi)
        state = random_state(network)
        Euler(0.1, clip=clip).relax(network, state, None, 20)
        ends.append(state.u[1].clone())
    assert not torch.allclose(*ends)
