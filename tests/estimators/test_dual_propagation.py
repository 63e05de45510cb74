"""Dual propagation against autograd through the same network, and against its own equations."""

from __future__ import annotations

import math
import re
from functools import partial

import cases
import pytest
import torch
from networks import COSTS, GRAPH, LOCALS, assert_close_lists, build, graph, images, joined
from tape import Tape
from toys import recorded, same, training, weights

import eqprop
from eqprop.estimator import Backprop, DualPropagation
from eqprop.network import Conv, Dense, Hopfield, Identity, Network, PredictiveCoding
from eqprop.network.activation import ACTIVATIONS, one_a_layer
from eqprop.relaxation import Euler
from eqprop.training.step import CapturedStep

each_kind = pytest.mark.parametrize("kind", cases.KINDS)
each_net = pytest.mark.parametrize("net", cases.NETS)
each_cost = pytest.mark.parametrize("cost", sorted(COSTS))
each_option = pytest.mark.parametrize("estimator", [Backprop(), DualPropagation()])
CONV = partial(Conv, channels=3, kernel=3, padding=1)


def with_skips(local, phi):
    """Two edges into layers 2 and 4, one of them a strided convolution; a soft pool; pictures."""
    short = partial(Conv, channels=3, kernel=1, stride=2, bias=False)
    layers = [
        ((0, CONV),),
        ((1, CONV), (1, Identity)),
        ((2, partial(CONV, pool="soft")),),
        ((3, CONV), (2, short)),
        ((4, partial(Dense, units=3)),),
    ]
    return graph(local, phi, (2, 4, 4), layers)


OTHERS = {
    "edges by their product alone": images,
    "two edges into a layer": lambda local, phi: build(local, phi, GRAPH),
    "skips": with_skips,
    "a bent output": lambda local, phi: build(local, phi),
}


def state_of(network, x):
    state = network.new_state(len(x))
    state.clamp(0, x)
    return state


def estimated(estimator, network, x, target, cost="squared_error", **how):
    cost = COSTS[cost]()
    return estimator.estimate(network, state_of(network, x), Euler(), cost, target, **how)


def norm(gradients):
    return float(torch.cat([g.flatten() for g in gradients]).norm())


def errors(network, betas, cost):
    """The distance to backprop's gradient, relative to that, at each β."""
    x, y = cases.batch(network)
    wanted = estimated(Backprop(), network, x, y, cost).gradients
    for beta in betas:
        found = estimated(DualPropagation(beta), network, x, y, cost).gradients
        yield norm([a - b for a, b in zip(found, wanted, strict=True)]) / norm(wanted)


def assert_order(network, cost):
    betas = [0.2, 0.05]
    large, small = errors(network, betas, cost)
    assert math.log(large / small) / math.log(4.0) == pytest.approx(DualPropagation.order, abs=0.05)
    assert 0.0 < small < betas[-1] ** DualPropagation.order


@each_kind
@each_net
@each_cost
def test_the_error_is_of_order_beta_squared(kind, net, cost):
    assert_order(cases.network(kind, net, "sigmoid" if kind == "hopfield" else "tanh"), cost)


@each_kind
@each_cost
@pytest.mark.parametrize("other", OTHERS)
def test_so_it_is_on_networks_of_other_shapes(kind, cost, other):
    torch.manual_seed(0)
    assert_order(OTHERS[other](LOCALS[kind](), "tanh"), cost)


@each_kind
@each_net
@each_cost
@pytest.mark.parametrize("beta", [0.3, 7.0])
def test_a_linear_network_has_backprop_s_gradient_at_any_strength(kind, net, cost, beta):
    network = cases.network(kind, net, "identity")
    [error] = errors(network, [beta], cost)
    assert error < 1e-13


@each_kind
@each_net
@pytest.mark.parametrize("phi", ["relu", "leaky_relu", "hard_sigmoid"])
def test_piecewise_linear_networks_agree_where_no_unit_crosses_a_kink(kind, net, phi):
    [error] = errors(cases.network(kind, net, phi), [1e-6], "cross_entropy")
    assert error < 1e-7  # rounding over β


def by_its_equations(network, x, target, beta):
    """The published algorithm, layer after layer, of a dense chain with a linear output."""
    phi = [*[network.phi[1]] * (network.n_layers - 2), ACTIVATIONS["identity"]]
    r, drives = [network.rate_phi[0](x)], []
    for edge, f in zip(network.W, phi, strict=True):
        drives.append(r[-1] @ edge.weight.T + edge.bias)
        r.append(f(drives[-1]))
    pushed, found = -beta * (r[-1] - target), []
    for layer in reversed(range(len(drives))):
        up, down = (phi[layer](drives[layer] + sign * pushed / 2) for sign in (1, -1))
        r[layer + 1] = (up + down) / 2
        delta = up - down
        pushed = delta @ network.W[layer].weight
        found.append(delta)
    return [
        part
        for layer, delta in enumerate(reversed(found))
        for part in (-delta.T @ r[layer] / len(x) / beta, -delta.mean(0) / beta)
    ]


@each_kind
@pytest.mark.parametrize("phi", ["tanh", "relu"])
@pytest.mark.parametrize("beta", [0.1, 1.5])
def test_the_equations_spelled_out(kind, phi, beta):
    network = cases.network(kind, "dense", phi)
    x, y = cases.batch(network)
    wanted = [g.detach() for g in by_its_equations(network, x, y, beta)]
    assert_close_lists(estimated(DualPropagation(beta), network, x, y).gradients, wanted)


@each_kind
def test_layers_that_reach_no_output_learn_nothing(kind):
    torch.manual_seed(0)
    ends = [((0, partial(Dense, units=n)),) for n in (6, 5, 3)]
    network = graph(LOCALS[kind](), "tanh", (4,), ends)
    x, y = cases.batch(network)
    wanted = estimated(Backprop(), network, x, y).gradients
    found = estimated(DualPropagation(), network, x, y).gradients
    assert_close_lists(found, wanted)
    assert [bool(g.any()) for g in found] == [False] * 4 + [True] * 2


@each_kind
@each_net
def test_what_it_says_besides_is_what_backprop_says(kind, net):
    network = cases.network(kind, net)
    x, y = cases.batch(network)
    silent = estimated(DualPropagation(), network, x, y)
    measured = estimated(DualPropagation(), network, x, y, measure=True)
    control = estimated(Backprop(), network, x, y, measure=True)
    torch.testing.assert_close(silent.output, network.feed_forward_output(x).detach())
    assert silent.metrics == {}
    assert measured.metrics == pytest.approx(control.metrics)
    assert measured.metrics["cost/free"] > 0.0
    estimator, state = DualPropagation(), state_of(network, x)
    estimator.predict(network, state, Euler())
    assert torch.equal(state.u[-1], silent.output)


@each_kind
def test_nothing_leaks_from_batch_to_batch(kind):
    """Of other sizes and weights: one estimator and state for all, and new ones for each."""
    network, kept, states = cases.network(kind), DualPropagation(0.5), {}
    for n in (6, 2, 6, 1, 9, 2):
        x, y = cases.batch(network, n, seed=n)
        state = states.setdefault(n, network.new_state(n))
        state.clamp(0, x)
        cost = COSTS["cross_entropy"]()
        found = kept.estimate(network, state, Euler(), cost, y, measure=n == 6).gradients
        fresh = estimated(DualPropagation(0.5), network, x, y, "cross_entropy").gradients
        assert_close_lists(found, fresh, rtol=0, atol=0)
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), found, strict=True):
                parameter.sub_(gradient, alpha=0.3)


@each_net
def test_with_closed_forms_nothing_is_differentiated(net, monkeypatch):
    network = cases.network("predictive_coding", net)
    x, y = cases.batch(network)
    monkeypatch.delattr(torch.autograd, "grad")
    assert norm(estimated(DualPropagation(), network, x, y).gradients) > 0.0


@pytest.mark.parametrize("kind", ["gaussian", "hopfield"])
def test_a_captured_step_is_the_plain_one(kind):
    tape = Tape()
    plain = training(kind, estimator=DualPropagation(), log_every=7)
    captured = training(
        kind, estimator=DualPropagation(), log_every=7, take_step=CapturedStep(tape)
    )
    recorded(plain), recorded(captured)
    assert same(weights(plain), weights(captured))
    assert tape.captured == 1

    class Mine(DualPropagation):
        def estimate(self, *arguments, **keys):
            return super().estimate(*arguments, **keys)

    assert "Mine" in Mine().capture_obstacle()


# ------------------------------------------------------------- what it refuses


def refused(estimator, network, *words):
    with pytest.raises(ValueError, match=re.escape(words[0])) as caught:
        estimator.check(network)
    line = str(caught.value)
    assert f"estimator={estimator.option}" in line
    assert "\n" not in line
    for word in words:
        assert word in line


@each_option
def test_an_energy_given_as_a_whole_is_refused(estimator):
    class Whole(eqprop.RestrictedHopfield):
        def energy(self, u):
            return super().energy(u)

    network = Whole([4, 6, 3], COSTS["squared_error"](), 4, ["sigmoid"] * 3)
    refused(estimator, network, "Whole", "as a whole", "choose estimator=ep")


@each_option
def test_edges_that_go_around_are_refused(estimator):
    edges = [joined(Dense((n,), 4), s, t) for n, s, t in ((3, 0, 1), (4, 1, 2))]
    edges.append(joined(Dense((4,), 4, bias=False), 2, 1))
    network = Network([(3,), (4,), (4,)], one_a_layer(["tanh"] * 3, 3), edges, Hopfield())
    refused(estimator, network, "around through layers", "1", "2", "choose estimator=ep")


def test_a_parameter_of_no_edge_is_refused():
    class Priced(PredictiveCoding, torch.nn.Module):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.price = torch.nn.Parameter(torch.ones(()))

    refused(DualPropagation(), build(Priced()), "local.price", "no edge", "backprop")


@each_kind
@each_net
@each_option
def test_what_it_can_train_is_not_refused(kind, net, estimator):
    estimator.check(cases.network(kind, net))


@pytest.mark.parametrize("beta", [0.0, -0.5, math.nan])
def test_a_strength_that_cannot_be_is_refused(beta):
    with pytest.raises(ValueError, match=r"estimator\.beta"):
        DualPropagation(beta)


@each_kind
def test_a_target_of_another_shape_is_refused(kind):
    network = cases.network(kind)
    x, y = cases.batch(network)
    with pytest.raises(ValueError, match="shape"):
        estimated(DualPropagation(), network, x, y[:, :2])
