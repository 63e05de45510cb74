"""A state: what it holds back while the weights are held, and that it disturbs no other."""

from __future__ import annotations

import copy
import pickle
from contextlib import nullcontext

import pytest
import torch
from networks import (
    GRAPH,
    LOCALS,
    assert_by_autograd,
    assert_close_lists,
    build,
    gradient_by_autograd,
    random_nudge,
    random_state,
    weight_gradient,
    weights_by_autograd,
)

from eqprop.estimator import CenteredEquilibriumPropagation, EquilibriumPropagation
from eqprop.network import SquaredError
from eqprop.relaxation import Anderson, Euler, Newton

each_kind = pytest.mark.parametrize("kind", sorted(LOCALS))
each_model = pytest.mark.parametrize("kind", ["gaussian", "hopfield"])
SOLVERS = {
    "euler": lambda: Euler(0.1, n_relax=6),
    "tolerance": lambda: Euler(0.1, n_relax=6, tol=1e-9),
    "adaptive": lambda: Euler(0.1, n_relax=6, adaptive=True),
    "newton": lambda: Newton(n_relax=3, n_nudged=3),
    "anderson": lambda: Anderson(0.1, n_relax=6),
}
each_solver = pytest.mark.parametrize("solver", SOLVERS)


def change(network):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)


@each_kind
def test_weights_that_change_between_two_holds_are_seen(kind):
    network = build(LOCALS[kind](), "tanh", GRAPH)
    state = random_state(network)
    for _ in range(3):
        with state.held():
            assert_by_autograd(network, state)
            assert_by_autograd(network, state)  # now by what is known
        change(network)


@each_kind
@each_solver
def test_weights_that_change_between_two_relaxations_are_seen(kind, solver):
    """And between two steps that nobody holds: a fresh network goes the same way."""
    network = build(LOCALS[kind](), "tanh", GRAPH)
    state, nudge, found = random_state(network), random_nudge(network), SOLVERS[solver]()
    for hold in (True, False, True):
        change(network)
        fresh = build(LOCALS[kind](), "tanh", GRAPH)
        fresh.load_state_dict(network.state_dict())
        other = fresh.new_state(3)
        other.clamp(0, state.u[0])
        other.u[:] = state.u
        for net, of in ((network, state), (fresh, other)):
            if hold:
                found.relax(net, of, nudge, 4)
            else:
                with torch.no_grad():
                    found.begin(net, of, nudge)
                    found.step(net, of, nudge)
        assert_close_lists(state.u, other.u, rtol=0, atol=0)


@each_kind
def test_a_clamp_drops_what_was_known(kind):
    network = build(LOCALS[kind](), "tanh", GRAPH)
    state = random_state(network)
    with state.held():
        for layer in (0, 2, 0):
            network.gradient(state)
            state.clamp(layer, torch.rand_like(state.u[layer]))
            assert_by_autograd(network, state)
        state.release(2)
        assert_by_autograd(network, state)
        state.reset("normal" if kind != "rate_hopfield" else "zeros")
        assert_by_autograd(network, state)
        kept = state.copy()
        Newton(n_relax=2).relax(network, state, None, 2)
        state.restore(kept)
        assert_by_autograd(network, state)
        assert all(torch.equal(a, b) for a, b in zip(state.u, kept.u, strict=True))


@each_kind
@each_solver
def test_what_is_known_after_a_phase_is_right(kind, solver):
    """Inside one hold: phases with and without a nudge, and looks in between."""
    network, found = build(LOCALS[kind](), "sigmoid", GRAPH), SOLVERS[solver]()
    state, nudge = random_state(network), random_nudge(network)
    with state.held():
        for wanted in (None, nudge, None):
            found.relax(network, state, wanted, 3)
            assert_by_autograd(network, state, wanted)
            found.relax(network, state, wanted, 2, measure=True)
            assert_by_autograd(network, state, wanted)


@each_kind
@each_solver
def test_looking_changes_no_bit(kind, solver):
    network, ends = build(LOCALS[kind](), "sigmoid", GRAPH), []
    start, nudge = random_state(network), random_nudge(network)
    for look in (False, True):
        state, found = random_state(network), SOLVERS[solver]()
        state.clamp(0, start.u[0])
        state.u[:] = start.u
        with state.held():
            found.relax(network, state, None, 3, measure=look)
            if look:
                network.gradient(state, nudge)
                network.energies(state)
                weight_gradient(network, state)
            found.relax(network, state, nudge, 3, measure=look)
        ends.append([layer.clone() for layer in state.u])
    assert_close_lists(*ends, rtol=0, atol=0)


@each_kind
@each_solver
@pytest.mark.parametrize("hold", [False, True])
def test_another_state_of_another_batch_changes_no_bit(kind, solver, hold):
    """An evaluation between two estimates, or between two phases, with another batch size."""
    network, ends = build(LOCALS[kind](), "tanh", GRAPH), []
    start, evaluating = random_state(network), SOLVERS[solver]()
    cost, target = SquaredError(), random_nudge(network).target
    for evaluate in (False, True):
        state, found, ep = random_state(network), SOLVERS[solver](), EquilibriumPropagation(0.5)
        state.clamp(0, start.u[0])
        state.u[:] = start.u
        torch.manual_seed(3)
        state.generator = torch.Generator().manual_seed(1)
        seen = []
        with state.held() if hold else nullcontext():
            for batch in (5, 1, 3):
                estimate = ep.estimate(network, state, found, cost, target)
                seen += [g.clone() for g in estimate.gradients]
                kept = [layer.clone() for layer in state.u]
                if evaluate:
                    other = random_state(network, batch)
                    other.generator = torch.Generator().manual_seed(2)
                    for solver_of_it in (evaluating, found):
                        solver_of_it.free_phase(network, other, measure=True)
                    network.energies(other)
                assert all(torch.equal(a, b) for a, b in zip(state.u, kept, strict=True))
                found.relax(network, state, None, 2)
                seen += [layer.clone() for layer in state.u]
        ends.append(seen)
    assert_close_lists(*ends, rtol=0, atol=0)


@pytest.mark.parametrize("estimator", [EquilibriumPropagation, CenteredEquilibriumPropagation])
def test_the_product_with_the_input_is_computed_once_a_batch(estimator, monkeypatch):
    """It is the only large one of a relaxation."""
    network = build(LOCALS["hopfield"](), "tanh")
    state, seen = random_state(network), []
    drive = type(network.W[0]).drive

    def counted(edge, r, out, add, memory):
        seen.append(edge.source)
        drive(edge, r, out, add, memory)

    monkeypatch.setattr(type(network.W[0]), "drive", counted)
    target = random_nudge(network).target
    estimator(0.5).estimate(network, state, Newton(n_relax=3, n_nudged=3), SquaredError(), target)
    assert seen.count(0) == 1
    assert seen.count(1) > 2


@each_model
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_stands_alone(kind, copied, pair):
    model, _ = pair(kind, [4, 6, 5, 3], 3, "tanh")
    kept = [layer.clone() for layer in model.u]
    twin = copied(model)
    twin.u_relax(0.1, 3, 0.0, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(model.u, kept, strict=True))
    model.u_relax(0.1, 3, 0.0, 1.0)
    assert_close_lists(twin.u, model.u, rtol=0, atol=0)
    assert twin.clamp_du == model.clamp_du
    assert_close_lists(twin.w_get_gradients(), weights_by_autograd(model, model.u))
    wanted = gradient_by_autograd(twin, twin.u)
    assert_close_lists(twin.gradient(twin.state)[1:], wanted[1:])


def test_assigning_a_slice_copies_each_layer():
    network = build(LOCALS["hopfield"]())
    state = random_state(network)
    homes = [layer.data_ptr() for layer in state.u]
    new = [torch.randn_like(layer) for layer in state.u]
    state.u[1:] = new[1:]
    assert [layer.data_ptr() for layer in state.u] == homes
    assert_close_lists(state.u[1:], new[1:], rtol=0, atol=0)
    with pytest.raises(ValueError, match="shape"):
        state.u[1] = new[2]


def test_a_batch_has_a_sample():
    with pytest.raises(ValueError, match="0"):
        build(LOCALS["hopfield"]()).new_state(0)


@each_model
def test_verbs_of_the_facade_within_a_hold(kind, pair):
    """Somebody who holds the weights around his own loop computes the same."""
    ends = []
    for hold in (False, True):
        torch.manual_seed(2)
        model, _ = pair(kind, [4, 6, 5, 3], 3, "tanh")
        with model.state.held() if hold else nullcontext():
            residuals = [model.u_step(0.1, 1.0) for _ in range(4)]
            model.clamp_layer(2, torch.ones_like(model.u[2]))
            residuals += [model.u_step(0.1, 1.0) for _ in range(4)]
            grads = model.w_get_gradients()
        ends.append([*model.u, *grads, torch.tensor(residuals)])
    assert_close_lists(*ends, rtol=0, atol=0)
