"""Sweeps to an equilibrium, what they leave out, and their differentiable form.

Oracles: the fixed point written out, the same sweeps without what is left out or kept, finite
differences of the plain step.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from networks import (
    GRAPH,
    LOCALS,
    assert_close_lists,
    build,
    graph,
    implicit_gradient,
    random_nudge,
    random_state,
    weight_gradient,
)

from eqprop.network import ACTIVATIONS, Conv, Dense, Identity
from eqprop.network.cost import SquaredError
from eqprop.relaxation import Anderson, Newton, StopReason, Sweep

CONV = partial(Conv, channels=2, kernel=3, padding=1)
NO_BIAS = partial(CONV, bias=False)
OUT = partial(Dense, units=3)
GRAPHS = {
    "chain": [((0, CONV),), ((1, partial(CONV, pool="max")),), ((2, CONV),), ((3, OUT),)],
    "siblings": [  # layers 1 and 2 share no edge, and drive the same layer
        ((0, CONV),),
        ((0, partial(CONV, pool="soft")),),
        ((1, partial(CONV, pool="average")), (2, NO_BIAS)),
        ((3, CONV),),
        ((4, OUT), (2, partial(OUT, bias=False))),
    ],
    "residual": [
        ((0, CONV),),
        ((1, CONV),),
        ((2, CONV), (1, Identity)),
        ((3, partial(CONV, pool="average")),),
        ((4, OUT),),
    ],
}
PICTURE = (2, 4, 4)
TOL = 1e-10
each_graph = pytest.mark.parametrize("shape", GRAPHS)
each_order = pytest.mark.parametrize("order", ["backward", "forward", "even_odd"])


def make(kind, shape, phi="tanh", scale=1.0):
    network = graph(LOCALS[kind](), phi, PICTURE, GRAPHS[shape])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(scale)
    return network


def like(network, start):
    """Another state, clamped as that one, where it is."""
    state = network.new_state(start.batch_size)
    state.clamp(0, start.u[0])
    state.u[:] = start.u
    return state


# ---------------------------------------------------------------------- equilibria


def drive_and_feedback(network, u, layer):
    """d + f, by autograd of −E without the layer's own term."""
    leaves = [x.clone().requires_grad_() for x in u]
    interaction = sum((leaves[i] * network.driven(i, leaves)).sum() for i in range(1, len(u)))
    return torch.autograd.grad(interaction, leaves[layer])[0]


@pytest.mark.estimators
@pytest.mark.parametrize(
    ("shape", "phi"),
    [  # (a max pool of rates that may be negative holds some units on its kinks)
        ("chain", "relu"),
        ("chain", "hard_sigmoid"),
        ("siblings", "relu6"),
        ("siblings", "tanh"),
        ("residual", "tanh"),
    ],
)
@pytest.mark.parametrize("rule", ["projected", "exact", "newton"])
def test_a_rate_hopfield_network_comes_to_the_fixed_point(shape, phi, rule):
    """u = φ(drive + feedback), where the residual is zero, bounds that hold units and all."""
    network = make("rate_hopfield", shape, phi, 0.6)
    state = random_state(network, 4)
    solver = Sweep(rule, "even_odd", 400, tol=1e-10, init="zeros")
    found = solver.free_phase(network, state)
    assert found.reason is StopReason.CONVERGED
    for layer in range(1, network.n_layers):
        wanted = network.phi[layer](drive_and_feedback(network, state.u, layer))
        torch.testing.assert_close(state.u[layer], wanted, rtol=0, atol=1e-8)
    if phi == "relu":
        assert any(bool((u == 0).any()) for u in state.u[1:-1])


@pytest.mark.parametrize("shape", ["chain", "siblings"])
@pytest.mark.parametrize("phi", ["identity", "relu", "hard_sigmoid", "relu6"])
@pytest.mark.parametrize("beta", [None, 0.5])
def test_for_projections_both_hopfield_energies_have_the_same_equilibria(shape, phi, beta):
    networks = [make(kind, shape, phi, 0.6) for kind in ("rate_hopfield", "hopfield")]
    networks[1].load_state_dict(networks[0].state_dict())
    start = random_state(networks[0], 4)
    nudge = None if beta is None else random_nudge(networks[0], beta=beta, batch=4)
    ends = []
    for network in networks:
        state = like(network, start)
        Sweep("exact", "even_odd", tol=1e-11).relax(network, state, nudge, 500)
        pairs = zip(network.phi[1:], state.u[1:], strict=True)
        ends.append([phi(u) for phi, u in pairs] if network is networks[1] else state.u[1:])
    assert_close_lists(*ends, rtol=0, atol=1e-8)


@pytest.mark.parametrize("scale", [0.5, 3.0])
@pytest.mark.parametrize("kind", ["predictive_coding", "rate_hopfield"])
def test_a_factor_before_the_energy_weakens_the_nudge_alone(kind, scale):
    """scale · E + β C moves as E + (β / scale) C does: by all rules, and in ``next``."""

    class Weighed(LOCALS[kind]):
        pass

    Weighed.scale = scale
    plain, weighed = (build(local(), "relu", GRAPH) for local in (LOCALS[kind], Weighed))
    weighed.load_state_dict(plain.state_dict())
    nudge = random_nudge(plain, beta=0.6)
    weaker = nudge._replace(beta=nudge.beta / scale)
    start = random_state(plain)
    for rule in ("projected", "exact") if kind == "rate_hopfield" else ("projected",):
        solver, ends = Sweep(rule), []
        for network, of in ((plain, weaker), (weighed, nudge)):
            state = like(network, start)
            with torch.no_grad():
                solver.step(network, state, of)
            ends.append(state.u)
            assert_close_lists(solver.next(network, list(start.u), of), state.u)
        assert_close_lists(*ends)


@pytest.mark.estimators
@pytest.mark.parametrize("phi", ["sigmoid", "tanh", "relu6"])
@pytest.mark.parametrize(
    "solver", [Newton(tol=TOL), Sweep("projected", tol=TOL), Anderson(0.05, tol=TOL)]
)
def test_from_the_ends_of_the_range_a_rate_hopfield_network_finds_back(phi, solver):
    """There the slope of its energy is infinite, or none leads out of its domain."""
    network = build(LOCALS["rate_hopfield"](), phi, GRAPH)
    low, high = ACTIVATIONS[phi].range
    ends = []
    for start in (low, high):
        state = random_state(network)
        state.clamp(0, torch.linspace(-1, 1, 12).view(3, 4).double())
        for layer in state.free:
            state.u[layer].fill_(start)
        assert solver.relax(network, state, None, 3000).reason is StopReason.CONVERGED
        ends.append(state.u)
    assert_close_lists(*ends, rtol=0, atol=1e-6)


# ---------------------------------------------------------------------- what is left out

RULES = [
    ("projected", "predictive_coding"),
    ("newton", "predictive_coding"),
    ("newton", "gaussian"),
]
each_rule_at_rest = pytest.mark.parametrize(("rule", "kind"), RULES)


def counted(counts, i, original, layer):
    counts[i] += 1
    original(layer)


@each_graph
@each_order
@each_rule_at_rest
def test_layers_at_rest_are_left_out_without_a_difference(shape, order, rule, kind):
    """Bit by bit what sweeps over every layer make, after each number of sweeps."""
    network, solver = make(kind, shape), Sweep(rule, order, dt=0.9)
    start, nudge = random_state(network, 2), random_nudge(network, batch=2)
    moved = [0, 0]
    with torch.no_grad():
        states = [like(network, start) for _ in range(2)]
        for i, state in enumerate(states):
            state.moved = partial(counted, moved, i, state.moved)
        with states[0].held(), states[1].held():
            for state in states:
                network.feed_forward(state)
            for _ in range(5):
                states[1].at_rest = set()
                for state in states:
                    solver.step(network, state, nudge)
                assert_close_lists(states[0].u, states[1].u, rtol=0, atol=0)
                gradients = [network.gradient(state, nudge) for state in states]
                for layer in states[0].at_rest:
                    if layer < network.n_layers - 1:
                        assert not gradients[1][layer].any()
                assert_close_lists(gradients[0][1:], gradients[1][1:], rtol=0, atol=0)
                assert_close_lists(*(weight_gradient(network, s) for s in states), rtol=0, atol=0)
    assert moved[0] < moved[1] or order == "backward"


@each_graph
def test_nothing_rests_beside_a_layer_that_is_held_above_the_input(shape):
    network = make("predictive_coding", shape)
    state = random_state(network, 2, (0, 2))
    with torch.no_grad(), state.held():
        network.feed_forward(state)
        assert not state.at_rest
        state.release(2)
        network.feed_forward(state)
        assert state.at_rest == set(range(1, network.n_layers))
        state.clamp(2, state.u[2] + 0.1)
        assert {1, 2}.isdisjoint(state.at_rest)
        gradient = network.gradient(state)
        assert not any(gradient[layer].any() for layer in state.at_rest)


@each_graph
@pytest.mark.parametrize("kind", sorted(LOCALS))
@pytest.mark.parametrize("driven", [False, True], ids=["at once", "after a phase"])
def test_restoring_a_copy_equals_recomputing(shape, kind, driven):
    """Within one hold; the copy is taken with and without anything known of the state."""
    network = make(kind, shape, "relu")
    start, nudge = random_state(network, 2), random_nudge(network, batch=2)
    solver = Sweep("newton" if kind in ("gaussian", "hopfield") else "projected", "even_odd")
    back = nudge._replace(beta=-nudge.beta)
    with torch.no_grad():
        state = like(network, start)
        with state.held():
            if driven:
                network.feed_forward(state) if network.feedforward else None
                solver.relax(network, state, None, 2)
            kept = state.copy()
            solver.relax(network, state, nudge, 3)
            state.restore(kept)
            assert_close_lists(state.u, kept.u, rtol=0, atol=0)
            fresh = like(network, state)
            assert_close_lists(
                *(network.gradient(s, back)[1:] for s in (state, fresh)), rtol=0, atol=0
            )
            for one in (state, fresh):
                solver.relax(network, one, back, 3)
            assert_close_lists(state.u, fresh.u, rtol=0, atol=0)
            assert_close_lists(
                *(weight_gradient(network, s) for s in (state, fresh)), rtol=0, atol=0
            )


def test_a_copy_of_another_hold_brings_back_the_layers_alone():
    network = make("predictive_coding", "chain")
    state, nudge = random_state(network, 2), random_nudge(network, batch=2)
    with torch.no_grad():
        with state.held():
            network.feed_forward(state)
            kept = state.copy()
        for parameter in network.parameters():
            parameter.mul_(1.5)
        with state.held():
            Sweep("projected").relax(network, state, nudge, 2)
            state.restore(kept)
            assert not state.at_rest
            fresh = like(network, state)
            found, wanted = network.gradient(state, nudge), network.gradient(fresh, nudge)
            assert_close_lists(found[1:], wanted[1:], rtol=0, atol=0)


# ---------------------------------------------------------------------- the differentiable step

NEXT = [
    ("projected", "predictive_coding", "tanh"),
    ("projected", "predictive_coding", "relu"),
    ("projected", "rate_hopfield", "tanh"),
    ("projected", "rate_hopfield", "relu6"),
    ("projected", "hopfield", "relu"),
    ("exact", "rate_hopfield", "hard_sigmoid"),
    ("exact", "hopfield", "hard_sigmoid"),
    ("newton", "rate_hopfield", "relu"),
    ("newton", "rate_hopfield", "tanh"),
    ("newton", "hopfield", "hard_sigmoid"),
    ("newton", "predictive_coding", "tanh"),
]
each_next = pytest.mark.parametrize(("rule", "kind", "phi"), NEXT)


def stepped(network, solver, u, nudge):
    """One step, of a state of its own."""
    state = network.new_state(len(u[0]))
    state.clamp(0, u[0])
    state.u[:] = u
    with torch.no_grad():
        solver.step(network, state, nudge)
    return [layer.clone() for layer in state.u]


@each_next
@each_order
@pytest.mark.parametrize("dt", [1.0, 0.6])
def test_next_is_the_step(rule, kind, phi, order, dt):
    network, solver = build(LOCALS[kind](), phi, GRAPH), Sweep(rule, order, dt=dt)
    start = random_state(network, 8, scale=2.0)
    if phi == "hard_sigmoid" and kind == "hopfield":
        start.u[1].round_()  # onto the kinks
    for nudge in (None, random_nudge(network, batch=8)):
        found = [layer.detach() for layer in solver.next(network, list(start.u), nudge)]
        assert_close_lists(found, stepped(network, solver, start.u, nudge))


def slope(network, solver, u, nudge, along, weigh):
    """The derivative of ⟨weigh, one step⟩ along a direction in the state and the parameters."""
    width, ends = 1e-6, []
    parameters = [p.data for p in network.parameters()]
    for sign in (1.0, -1.0):
        moves = [sign * width * a for a in along]
        for parameter, move in zip(parameters, moves[len(u) - 1 :], strict=True):
            parameter.add_(move)
        moved = [u[0], *(x + move for x, move in zip(u[1:], moves, strict=False))]
        after = stepped(network, solver, moved, nudge)
        ends.append(sum((w * x).sum() for w, x in zip(weigh, after[1:], strict=True)))
        for parameter, move in zip(parameters, moves[len(u) - 1 :], strict=True):
            parameter.sub_(move)
    return (ends[0] - ends[1]) / (2 * width)


@each_next
@pytest.mark.parametrize("dt", [1.0, 0.6])
def test_next_has_the_derivative_of_the_step(rule, kind, phi, dt):
    """At the equilibrium; of the rule projected anywhere. Units rest on kinks and bounds."""
    network = build(LOCALS[kind](), phi, GRAPH)
    solver = Sweep(rule, "even_odd", dt=dt)
    state, nudge = random_state(network, 8), random_nudge(network, beta=0.2, batch=8)
    if rule != "projected":
        whole = Sweep(rule, "even_odd", tol=1e-13)
        assert whole.relax(network, state, nudge, 900).reason is StopReason.CONVERGED
    u = [layer.clone() for layer in state.u]
    leaves = [layer.clone().requires_grad_() for layer in u[1:]]
    found = solver.next(network, [u[0], *leaves], nudge)
    weigh = [torch.randn_like(layer) for layer in u[1:]]
    loss = sum((w * x).sum() for w, x in zip(weigh, found[1:], strict=True))
    at = [*leaves, *network.parameters()]
    gradients = torch.autograd.grad(loss, at, materialize_grads=True)
    free = [torch.ones_like(g) for g in gradients]
    if rule != "projected":  # a unit at a kink has no derivative of its own
        for one, layer in zip(free, u[1:], strict=False):
            one[(layer == 0) | (layer == 1)] = 0.0
    for _ in range(3):
        along = [torch.randn_like(g) * one for g, one in zip(gradients, free, strict=True)]
        wanted = slope(network, solver, u, nudge, along, weigh)
        by_autograd = sum((g * a).sum() for g, a in zip(gradients, along, strict=True))
        torch.testing.assert_close(by_autograd, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["rate_hopfield", "predictive_coding"])
def test_through_projected_sweeps_autograd_gives_the_implicit_gradient(kind):
    network, cost = build(LOCALS[kind](), "tanh", GRAPH), SquaredError()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.7)
    state, target = random_state(network), random_nudge(network).target
    solver = Sweep("projected", "even_odd", 500, tol=1e-13)
    solver.free_phase(network, state)
    u = [layer.clone() for layer in state.u]
    for _ in range(80):
        u = solver.next(network, u, None)
    unrolled = torch.autograd.grad(cost.cost(u[-1], target).mean(), list(network.parameters()))
    implicit = implicit_gradient(network, state, cost, target)
    assert_close_lists(unrolled, implicit, rtol=1e-6, atol=1e-9)
