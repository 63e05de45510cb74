"""Sweeps that move all layers from the same state, against the published iteration by autograd."""

from __future__ import annotations

import pytest
import torch
from networks import (
    GRAPH,
    LOCALS,
    assert_close_lists,
    build,
    images,
    random_nudge,
    random_state,
)

from eqprop.network import RateHopfield
from eqprop.relaxation import Sweep

PHIS = ["hard_sigmoid", "half_hard_sigmoid", "shifted_sigmoid", "tanh"]


def iterated(network, u, nudge, place):
    """u ← φ(−∂E'/∂u − β ∂C/∂u), or the nudge outside φ; E' leaves out the G of each unit."""
    leaves = [layer.clone().requires_grad_() for layer in u]
    drives = [network.driven(layer, leaves) for layer in range(1, network.n_layers)]
    primed = -sum((r * d).sum() for r, d in zip(leaves[1:], drives, strict=True))
    totals = [-g for g in torch.autograd.grad(primed, leaves[1:])]
    pull = torch.zeros_like(u[-1])
    if nudge is not None:
        (pull,) = torch.autograd.grad(nudge.energy(leaves[-1]).sum(), leaves[-1])
    if place == "inside":
        totals[-1] = totals[-1] - pull
    moved = [phi(total) for phi, total in zip(network.phi[1:], totals, strict=True)]
    if place == "outside":
        moved[-1] = moved[-1] - pull
    return [u[0], *(layer.detach() for layer in moved)]


@pytest.mark.parametrize("phi", PHIS)
@pytest.mark.parametrize(
    ("cost", "place"),
    [(None, "inside"), ("cross_entropy", "inside"), ("cross_entropy", "outside")],
)
@pytest.mark.parametrize("make", [lambda phi: build(RateHopfield(), phi, GRAPH), None])
def test_it_is_the_published_iteration(phi, cost, place, make):
    network = images(RateHopfield(), phi) if make is None else make(phi)
    state = random_state(network)
    nudge = None if cost is None else random_nudge(network, cost)
    u = [layer.clone() for layer in state.u]
    for _ in range(4):
        u = iterated(network, u, nudge, place)
    Sweep("projected", "synchronous", nudge=place).relax(network, state, nudge, 4)
    assert_close_lists(state.u, u)


@pytest.mark.parametrize("phi", ["hard_sigmoid", "shifted_sigmoid"])
def test_a_squared_error_outside_a_saturated_output_still_pulls(phi):
    """Ernoult et al. (2019): s ← φ(d) + β (y − s), at rest (φ(d) + βy) / (1 + β)."""
    network = build(RateHopfield(), phi)
    state, nudge = random_state(network), random_nudge(network, beta=0.4)
    Sweep("projected", "synchronous", nudge="outside").relax(network, state, nudge, 3000)
    with torch.no_grad():
        drive = network.driven(3, state.u)
        wanted = (network.phi[3](drive) + 0.4 * nudge.target) / 1.4
    torch.testing.assert_close(state.u[-1], wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["predictive_coding", "rate_hopfield"])
@pytest.mark.parametrize("order", ["odd_even", "synchronous"])
@pytest.mark.parametrize("cost", ["squared_error", "cross_entropy"])
@pytest.mark.parametrize("dt", [1.0, 0.5])
def test_its_differentiable_form_is_the_step(kind, order, cost, dt):
    network = build(LOCALS[kind](), "hard_sigmoid", GRAPH)
    state, nudge = random_state(network), random_nudge(network, cost)
    places = ["inside", "outside"] if kind == "rate_hopfield" else ["inside"]
    for place in places:
        solver = Sweep("projected", order, dt=dt, nudge=place)
        u = [layer.clone() for layer in state.u]
        wanted = solver.next(network, u, nudge)
        solver.relax(network, state, nudge, 1)
        assert_close_lists(state.u, [layer.detach() for layer in wanted])


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"rule": "newton", "order": "synchronous"}, r"dynamics\.order=synchronous: newton"),
        ({"rule": "exact", "nudge": "outside"}, r"dynamics\.nudge=outside: needs .*projected"),
    ],
)
def test_what_does_not_go_together_is_refused(keys, words):
    with pytest.raises(ValueError, match=words):
        Sweep(**keys)
