"""Predictive coding with as many sweeps as edges, against autograd through the same network."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from networks import COSTS, assert_close_lists, graph, random_nudge

from eqprop.estimator import CenteredEquilibriumPropagation, EquilibriumPropagation
from eqprop.network import Conv, Dense, Identity, PredictiveCoding, residual
from eqprop.relaxation import StopReason, Sweep

CONV = partial(Conv, channels=3, kernel=3, padding=1)
POOLED = {pool: partial(CONV, pool=pool) for pool in ("max", "average", "soft")}
OUT = partial(Dense, units=3)


def row(*edges):
    return [((source, edge),) for source, edge in enumerate(edges)]


NETWORKS = {
    "3 pooled": ((2, 8, 8), row(POOLED["max"], POOLED["soft"], OUT)),
    "3 dense": ((5,), row(partial(Dense, units=7), partial(Dense, units=6), OUT)),
    "4 pooled": ((2, 4, 8), row(CONV, POOLED["average"], POOLED["max"], OUT)),
    "5 dense": ((5,), row(*[partial(Dense, units=n) for n in (7, 6, 8, 5)], OUT)),
    "6 pooled": (
        (2, 8, 4),
        row(CONV, POOLED["max"], CONV, POOLED["soft"], partial(Dense, units=6), OUT),
    ),
}
NETWORK_WITH_A_SKIP = (
    (3, 4, 4),
    [*row(CONV, CONV), ((2, CONV), (1, Identity)), ((3, POOLED["max"]),), ((4, OUT),)],
)
each_network = pytest.mark.parametrize("name", NETWORKS)
each_cost = pytest.mark.parametrize("cost", sorted(COSTS))


def make(name, phi="tanh"):
    in_shape, layers = NETWORKS.get(name, NETWORK_WITH_A_SKIP)
    network = graph(PredictiveCoding(), phi, in_shape, layers)
    state = network.new_state(4)
    state.clamp(0, torch.randn(4, *in_shape, dtype=torch.float64))
    return network, state, random_nudge(network, batch=4).target


def backprop(network, x, cost, target):
    loss = cost.cost(network.feed_forward_output(x), target).mean()
    return torch.autograd.grad(loss, list(network.parameters()))


def estimated(network, state, estimator, cost, target, sweeps):
    solver = Sweep("projected", "even_odd", sweeps, sweeps)
    found = estimator.estimate(network, state, solver, cost, target)
    assert found.phases["free"].reason is StopReason.EXACT
    return [g.clone() for g in found.gradients]


def error(found, wanted):
    """The largest of any parameter, relative to that parameter's gradient."""
    pairs = zip(found, wanted, strict=True)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


@each_network
@each_cost
@pytest.mark.parametrize("estimator", [EquilibriumPropagation, CenteredEquilibriumPropagation])
def test_the_error_is_of_the_order_that_the_scheme_says(name, cost, estimator):
    network, state, target = make(name, "softplus" if name.startswith("5") else "tanh")
    cost, x = COSTS[cost](), state.u[0].clone()
    wanted = backprop(network, x, cost, target)
    betas = [1e-2, 1e-3]
    errors = [
        error(estimated(network, state, estimator(beta), cost, target, len(network.W)), wanted)
        for beta in betas
    ]
    slope = math.log(errors[0] / errors[1]) / math.log(betas[0] / betas[1])
    assert slope == pytest.approx(estimator.order, abs=0.1), errors
    assert errors[-1] < 10 * betas[-1] ** estimator.order


@each_network
@pytest.mark.parametrize("phi", ["relu", "leaky_relu", "hard_sigmoid"])
def test_piecewise_linear_networks_agree_to_rounding(name, phi):
    """At a β so small that no unit crosses a kink: what is left is rounding over β."""
    network, state, target = make(name, phi)
    cost = COSTS["squared_error"]()
    wanted = backprop(network, state.u[0].clone(), cost, target)
    ep = CenteredEquilibriumPropagation(1e-6)
    found = estimated(network, state, ep, cost, target, len(network.W))
    assert_close_lists(found, wanted, rtol=1e-5, atol=1e-8)


@each_network
def test_a_layer_that_the_wave_has_not_reached_learns_nothing(name):
    """A sweep of a chain takes the nudge two layers down."""
    network, state, target = make(name)
    last = network.n_layers - 1
    for sweeps in range(1, last + 1):
        ep = CenteredEquilibriumPropagation(0.1)
        found = estimated(network, state, ep, COSTS["squared_error"](), target, sweeps)
        named = dict(zip(dict(network.named_parameters()), found, strict=True))
        for layer in range(1, last + 1):
            arrived = layer > last - 2 * sweeps
            for key in ("weight", "bias"):
                assert bool(named[f"W.{layer - 1}.{key}"].any()) == arrived, (layer, sweeps)


@pytest.mark.parametrize("name", ["3 pooled", "5 dense"])
def test_every_state_is_near_the_fixed_point_after_as_many_sweeps_as_edges(name):
    """Its gradient is of order β², where one sweep less leaves one of order β."""
    network, state, target = make(name)
    nudge = random_nudge(network, beta=1e-4, batch=4)._replace(target=target)
    left = {}
    for sweeps in (len(network.W) - 1, len(network.W)):
        with torch.no_grad(), state.held():
            network.feed_forward(state)
            Sweep("projected", "even_odd").relax(network, state, nudge, sweeps)
            left[sweeps] = float(residual(network.gradient(state, nudge)))
    few, enough = left.values()
    assert enough < 1e-2 * few


def test_around_a_skip_the_sweeps_converge_to_it():
    """There a layer's move changes two signals at once, so no finite number is enough."""
    network, state, target = make("a skip")
    cost, ep = COSTS["squared_error"](), CenteredEquilibriumPropagation(1e-4)
    wanted = backprop(network, state.u[0].clone(), cost, target)
    few, many = (error(estimated(network, state, ep, cost, target, k), wanted) for k in (10, 60))
    assert few < 0.1
    assert many < 1e-6
