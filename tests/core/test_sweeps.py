"""The rules by which a sweep moves a layer."""

from __future__ import annotations

import pytest
import torch
from networks import (
    GRAPH,
    LOCALS,
    assert_close_lists,
    build,
    chord_minus_tangent,
    chords,
    curvature_by_autograd,
    gradient_by_autograd,
    implicit_gradient,
    random_nudge,
    random_state,
    total_energy,
)

import eqprop
from eqprop.network import Nudge
from eqprop.relaxation import Exact, Newton, Sweep
from eqprop.relaxation.sweep import groups

each_kind = pytest.mark.parametrize("kind", sorted(LOCALS))
each_order = pytest.mark.parametrize("order", ["backward", "forward", "even_odd"])
each_rule = pytest.mark.parametrize(
    ("rule", "kind"), [("newton", "gaussian"), ("newton", "hopfield"), ("exact", "hopfield")]
)
PIECEWISE = ["identity", "relu", "leaky_relu", "hard_sigmoid"]


@each_kind
@each_order
@pytest.mark.parametrize(
    ("cost", "clamped"), [(None, (0,)), ("squared_error", (1,)), ("cross_entropy", (0,))], ids=str
)
@pytest.mark.parametrize("phi", ["tanh", "leaky_relu"])
def test_a_newton_sweep_by_autograd(kind, order, cost, clamped, phi):
    """Gradient over curvature, clipped, one group after the other."""
    network = build(LOCALS[kind](), phi, GRAPH)
    state = random_state(network, clamped=clamped)
    nudge = None if cost is None else random_nudge(network, cost)
    u, share, clip = [layer.clone() for layer in state.u], 0.8, 0.3
    least = network.local.scale * network.local.own_curvature
    for _ in range(3):
        for group in groups(network, order):
            gradient = gradient_by_autograd(network, u, nudge)
            moves = {}
            for layer in (layer for layer in group if layer not in clamped):
                curvature = curvature_by_autograd(network, u, layer, nudge)
                if layer and chords(network, layer):
                    curvature += chord_minus_tangent(network, u, layer)
                curvature = curvature.abs().clamp(min=least)
                moves[layer] = (gradient[layer] / curvature).clamp(-clip, clip)
            for layer, move in moves.items():
                domain = network.terms[layer].domain(network.phi[layer])
                u[layer] = (u[layer] - share * move).clamp(*domain)
    solver = Sweep("newton", order, clip=clip, dt=1.6, tau=2.0)
    solver.relax(network, state, nudge, 3)
    assert_close_lists(state.u, u)


@pytest.mark.estimators
@pytest.mark.parametrize("phi", PIECEWISE)
@pytest.mark.parametrize("beta", [-0.5, None, 2.0])
def test_an_exact_move_ends_at_the_minimum_of_the_layer(phi, beta):
    network = build(LOCALS["hopfield"](), phi, GRAPH)
    state = random_state(network)
    nudge = None if beta is None else random_nudge(network, "squared_error", beta)
    solver = Exact()
    with torch.no_grad():
        for layer in (3, 2, 1):
            solver.move_layer(network, state, nudge, layer)
            best, least = state.u[layer].clone(), total_energy(network, state.u, nudge)
            for shift in torch.linspace(-4.0, 4.0, 81, dtype=best.dtype):
                for unit in range(best.shape[1]):
                    state.u[layer].copy_(best)
                    state.u[layer][:, unit] += shift
                    assert bool((least - total_energy(network, state.u, nudge) < 1e-9).all())
            state.u[layer].copy_(best)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_an_exact_move_of_an_energy_with_a_factor(scale):
    """A subclass that changes the factor alone still moves to its own minimum."""

    class Weighed(LOCALS["hopfield"]):
        pass

    Weighed.scale = scale
    network = build(Weighed(), "hard_sigmoid", GRAPH)
    state, nudge = random_state(network), random_nudge(network)
    with torch.no_grad():
        Exact().move_layer(network, state, nudge, 3)
        best, least = state.u[3].clone(), total_energy(network, state.u, nudge)
        for shift in torch.linspace(-3.0, 3.0, 61, dtype=best.dtype):
            for unit in range(best.shape[1]):
                state.u[3].copy_(best)
                state.u[3][:, unit] += shift
                assert bool((least - total_energy(network, state.u, nudge) < 1e-9).all())


@pytest.mark.estimators
def test_newton_agrees_with_exact_where_phi_has_kinks():
    network, ends = build(LOCALS["hopfield"](), "hard_sigmoid", GRAPH), []
    start, nudge = random_state(network, 4), random_nudge(network, batch=4)
    for solver in (Newton(), Exact(), Sweep("newton", "even_odd")):
        state = random_state(network, 4)
        state.clamp(0, start.u[0])
        state.u[:] = start.u
        for wanted in (None, nudge):
            solver.relax(network, state, wanted, 300)
        ends.append(state.u)
    for end in ends[1:]:
        assert_close_lists(end, ends[0], rtol=0, atol=1e-8)


def test_newton_rests_on_a_kink_that_a_nudge_holds():
    """Of one unit: the nudge pulls up from 0 and the drive, inside [0, 1], pulls down harder."""
    model = eqprop.RestrictedHopfield([1, 1], eqprop.SquaredError(1.0), 1, ["hard_sigmoid"])
    model.double()
    with torch.no_grad():
        model.W[0].weight.fill_(1.0)
        model.W[0].bias.fill_(0.0)
    model.clamp_layer(0, torch.full((1, 1), -3.0, dtype=torch.float64))
    model.u[1] = torch.zeros(1, 1, dtype=torch.float64)
    model.set_C_target(torch.ones(1, 1, dtype=torch.float64))
    found = Newton().relax(model, model.state, model.nudge(), 7, measure=True)
    newton = model.u[1].clone()
    assert found.residual == 0.0
    Exact().relax(model, model.state, model.nudge(), 7)
    torch.testing.assert_close(newton, model.u[1])


@pytest.mark.parametrize("rule", ["newton", "exact"])
def test_a_strength_for_each_sample(rule):
    """As each sample alone with its own β."""
    network = build(LOCALS["hopfield"](), "hard_sigmoid", GRAPH)
    start, nudge = random_state(network), random_nudge(network)
    beta = torch.tensor([-0.3, 0.0, 0.9], dtype=torch.float64)
    together = random_state(network)
    together.clamp(0, start.u[0])
    together.u[:] = start.u
    solver = Sweep(rule)
    solver.relax(network, together, nudge._replace(beta=beta), 4)
    for i in range(3):
        alone = random_state(network, 1)
        alone.clamp(0, start.u[0][i : i + 1])
        alone.u[:] = [layer[i : i + 1] for layer in start.u]
        solver.relax(network, alone, Nudge(nudge.cost, nudge.target[i : i + 1], beta[i]), 4)
        assert_close_lists([layer[i : i + 1] for layer in together.u], alone.u)


@each_rule
@each_order
@pytest.mark.parametrize("nudged", [False, True])
def test_next_is_the_step(kind, order, rule, nudged):
    """The differentiable one, of a state that it leaves alone."""
    network = build(LOCALS[kind](), "leaky_relu" if rule == "exact" else "tanh", GRAPH)
    state, solver = random_state(network), Sweep(rule, order, clip=0.4, dt=0.8)
    nudge = random_nudge(network) if nudged else None
    before = [layer.clone() for layer in state.u]
    found = solver.next(network, list(state.u), nudge)
    assert_close_lists(state.u, before, rtol=0, atol=0)
    assert not any(layer.requires_grad for layer in state.u)
    with torch.no_grad():
        solver.step(network, state, nudge)
    assert_close_lists([layer.detach() for layer in found], state.u)


@pytest.mark.estimators
@each_rule
def test_through_sweeps_at_the_equilibrium_autograd_gives_the_implicit_gradient(kind, rule):
    network = build(LOCALS[kind](), "identity" if rule == "exact" else "tanh", GRAPH)
    cost = eqprop.SquaredError()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.6)
    state, target = random_state(network), random_nudge(network).target
    solver = Sweep(rule, n_relax=500, tol=1e-13)
    solver.free_phase(network, state)
    u = [layer.clone() for layer in state.u]
    for _ in range(60):
        u = solver.next(network, u, None)
    loss = cost.cost(u[-1], target).mean()
    unrolled = torch.autograd.grad(loss, list(network.parameters()))
    implicit = implicit_gradient(network, state, cost, target)
    assert_close_lists(unrolled, implicit, rtol=1e-6, atol=1e-9)
