"""An output that is no state, but read out: against F = E of the other layers + β C(d)."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from networks import (
    COSTS,
    assert_by_autograd,
    assert_close_lists,
    graph,
    implicit_gradient,
    random_nudge,
    random_state,
)

from eqprop.estimator import CenteredEquilibriumPropagation
from eqprop.network import Conv, Dense, RateHopfield, WeightGradient
from eqprop.relaxation import Newton, Sweep, recommended_solver

ORDERS = ["backward", "forward", "even_odd", "odd_even", "synchronous"]
each_order = pytest.mark.parametrize("order", ORDERS)
each_cost = pytest.mark.parametrize("cost", sorted(COSTS))
each_net = pytest.mark.parametrize("net", ["dense", "conv"])


def made(net="dense", phi="shifted_sigmoid", seed=0):
    torch.manual_seed(seed)
    if net == "dense":
        layers = [((0, partial(Dense, units=n)),) for n in (6, 5, 3)]
        return graph(RateHopfield(readout=True), phi, (4,), layers)
    conv = partial(Conv, channels=3, kernel=3, padding=1, pool="max")
    layers = [((0, conv),), ((1, conv),), ((2, partial(Dense, units=3)),)]
    return graph(RateHopfield(readout=True), phi, (2, 8, 8), layers)


def energy_without_output(network, u, nudge):
    """F as a function of the states alone, the hidden layers ``u``."""
    drives = {layer: network.driven(layer, u) for layer in range(1, network.n_layers)}
    last = network.n_layers - 1
    terms = [
        network.phi[layer].primitive(u[layer]) - u[layer] * drives[layer]
        for layer in range(1, last)
    ]
    total = torch.stack([term.flatten(1).sum(1) for term in terms]).sum(0)
    return total if nudge is None else total + nudge.energy(drives[last])


@pytest.mark.estimators
@each_net
@each_cost
@each_order
@pytest.mark.parametrize("beta", [0.0, 0.6, -0.6])
def test_at_rest_the_hidden_layers_are_a_minimum_and_the_weights_see_the_cost(
    net, cost, order, beta
):
    network = made(net)
    state = random_state(network)
    nudge = random_nudge(network, cost, beta) if beta else None
    Sweep("projected", order).relax(network, state, nudge, 400)
    u = [layer.clone().requires_grad_() for layer in state.u]
    total = energy_without_output(network, u, nudge)
    found = torch.autograd.grad(total.sum(), u[1:-1])
    for gradient in found:
        assert float(gradient.abs().max()) < 1e-7
    weights = WeightGradient(network)
    weights.begin()
    weights.add(state, 1.0)
    parameters = list(network.parameters())
    wanted = torch.autograd.grad(
        energy_without_output(network, state.u, nudge).mean(),
        parameters,
        allow_unused=True,
        materialize_grads=True,
    )
    assert_close_lists(weights.finish(state), list(wanted))
    last = sum(float(g.square().sum()) for g in network.gradient(state, nudge)[1:])
    assert last < 1e-12, "the residual is that of what is relaxed"


@each_net
@each_cost
def test_each_synchronous_step_is_the_published_one(net, cost):
    """u ← φ(−∂/∂u (E' + β C(d))) of the hidden layers; E' leaves out the G of each unit."""
    network = made(net)
    state, nudge = random_state(network), random_nudge(network, cost)
    u = [layer.clone() for layer in state.u[:-1]]
    for _ in range(3):
        leaves = [layer.clone().requires_grad_() for layer in u]
        total = energy_without_output(network, leaves, nudge).sum()
        own = sum(
            phi.primitive(x).sum() for phi, x in zip(network.phi[1:], leaves[1:], strict=False)
        )
        pushed = torch.autograd.grad(own - total, leaves[1:])
        u[1:] = [phi(p).detach() for phi, p in zip(network.phi[1:], pushed, strict=False)]
    Sweep("projected", "synchronous").relax(network, state, nudge, 3)
    assert_close_lists(state.u[:-1], u)


@each_order
def test_in_a_free_phase_it_is_the_drive_and_sends_nothing_back(order):
    """Whatever the weights of the readout are, the hidden layers go the same way."""
    network, ends = made(), []
    start = random_state(network)
    for factor in (1.0, -5.0):
        with torch.no_grad():
            network.W[-1].weight.mul_(factor)
        state = random_state(network)
        state.clamp(0, start.u[0])
        state.u[:] = start.u
        Sweep("projected", order).relax(network, state, None, 2)
        with torch.no_grad():
            torch.testing.assert_close(state.u[-1], network.driven(3, state.u))
        ends.append(state.u[:-1])
    assert_close_lists(ends[0], ends[1], rtol=0, atol=0)


@pytest.mark.estimators
@each_net
@each_cost
def test_a_small_nudge_gives_the_gradient_of_the_cost(net, cost):
    network = made(net)
    state = random_state(network)
    target = random_nudge(network, cost).target
    solver = Sweep("projected", "synchronous", 600, 600, init="zeros")
    ep = CenteredEquilibriumPropagation(1e-3)
    found = ep.estimate(network, state, solver, COSTS[cost](), target).gradients
    solver.free_phase(network, state)
    wanted = implicit_gradient(network, state, COSTS[cost](), target)
    assert_close_lists(found, wanted, rtol=1e-4, atol=1e-6)


def test_by_autograd():
    """Energies, state gradient, curvature and weight gradient without a nudge."""
    network = made()
    assert_by_autograd(network, random_state(network))


@each_cost
def test_its_differentiable_form_has_the_same_fixed_point(cost):
    network = made()
    state, nudge = random_state(network), random_nudge(network, cost)
    solver = Sweep("projected", "synchronous")
    solver.relax(network, state, nudge, 400)
    found = solver.next(network, [layer.clone() for layer in state.u], nudge)
    assert_close_lists([layer.detach() for layer in found], list(state.u))


def test_what_cannot_be_read_out_is_refused():
    network = made()
    with pytest.raises(ValueError, match=r"model\.readout=true: only sweeps by the rule projected"):
        Newton().check(network)
    recommended_solver(network).check(network)
    layers = [((0, partial(Dense, units=3)),)]
    with pytest.raises(ValueError, match=r"model\.output_activation=identity, not tanh"):
        graph(RateHopfield(readout=True), ["identity", "tanh"], (4,), layers)
