"""The compiled loops against the plain operations and against double precision."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from looped import COSTS, ENERGIES, SIZES, SOLVERS, assert_same, network, network_like, relaxed

from eqprop import ConditionalGaussian
from eqprop.relaxation import Euler, Newton, StopReason, fused, loops


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    fused.compile_loops()


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("phi", list(itertools.product(("sigmoid", "tanh"), repeat=2)))
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("energy", ENERGIES)
def test_it_goes_where_the_plain_steps_go_in_double_precision(energy, cost, solver, phi) -> None:
    for batch, nudged in itertools.product((1, 2, 9), (False, True)):
        model = network(energy, cost, batch, phi)
        if not nudged:
            model.set_C_target(None)
        ours = SOLVERS[solver]()
        ours.compile_for(model)
        assert ours.compiled
        loops = relaxed(ours, model)
        exact = relaxed(SOLVERS[solver](), network_like(model))
        for found, wanted in zip(loops, exact, strict=True):
            assert (found - wanted).abs().max() <= 2e-5 * (1 + wanted.abs().max())


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_result_does_not_depend_on_threads_or_company(solver, threads) -> None:
    model, ours = network(batch=41), SOLVERS[solver]()
    ours.compile_for(model)
    torch.set_num_threads(1)
    alone = relaxed(ours, model)
    for n in (2, 3, 5):
        torch.set_num_threads(n)
        for found, wanted in zip(relaxed(ours, model), alone, strict=True):
            assert torch.equal(found, wanted)
    x, y, state = model.u[0].clone(), model.c_energy.target, [u.clone() for u in model.u]
    model.resize(3)
    model.clamp_layer(0, x[10:13])
    for layer, whole in zip(model.u[1:], state[1:], strict=True):
        layer.copy_(whole[10:13])
    model.set_C_target(y[10:13])
    for found, wanted in zip(relaxed(ours, model), alone, strict=True):
        # (the drive of the hidden layer is torch's product, which may round otherwise)
        assert torch.allclose(found, wanted[10:13], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so_in_its_own_sample(energy, solver, bad) -> None:
    model, ours = network(energy, batch=4), SOLVERS[solver]()
    ours.compile_for(model)
    fine = relaxed(ours, model)
    model.u[2][1, 3] = bad
    broken = relaxed(ours, model)
    assert not broken[1][1].isfinite().all()
    others = [0, 2, 3]
    for found, wanted in zip(broken, fine, strict=True):
        assert torch.equal(found[others], wanted[others])


def test_rates_are_right_to_the_last_digits() -> None:
    from eqprop.kernels import blocks

    u = np.linspace(-90, 90, 400_001, dtype=np.float32)
    u = np.append(u, [np.inf, -np.inf, np.nan, 0, 1e-20, -1e-20]).astype(np.float32)
    r, exact = np.empty_like(u), u.astype(np.float64)
    for kind, phi in ((blocks.TANH, np.tanh), (blocks.SIGMOID, lambda x: (1 + np.tanh(x / 2)) / 2)):
        blocks.rates(kind, u, r, len(u))
        np.testing.assert_allclose(r, phi(exact), rtol=0, atol=4 * np.finfo(np.float32).eps)
        near = np.abs(u) < 1  # where a sigmoid is not near 0 nor a tanh near ±1
        np.testing.assert_allclose(r[near], phi(exact[near]), rtol=4 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("batch", [4, 5])
def test_what_the_loop_leaves_is_not_computed_again(energy, batch, monkeypatch) -> None:
    """Nor is it kept when the state, its rates or the weights have changed since."""
    model, ours = network(energy, batch=batch), Euler(n_relax=3)
    ours.compile_for(model)
    state = [layer.clone() for layer in model.u]
    with model.holding_weights():
        ours.relax(model, 3)
        computed = []
        value_ = type(model.phi[1]).value_

        def watched(phi, u, out):
            computed.append(u.shape[1])
            return value_(phi, u, out)

        with monkeypatch.context() as patch:
            patch.setattr(type(model.phi[1]), "value_", watched)
            kept = [grad.clone() for grad in gradients(model)]
        assert SIZES[1] not in computed
        assert_same(kept, gradients(network_like(model)))
        for change in (
            lambda: model.u[1].add_(0.1),
            lambda: model.rates([2 * layer for layer in state]),
            lambda: model.state_gradient(state, [torch.empty_like(layer) for layer in state]),
            lambda: model.fast_init() if model.has_feedforward else model.reset_state(),
            lambda: ours.relax(model, 2),
        ):
            ours.relax(model, 1)
            change()
            assert_same(gradients(model), gradients(network_like(model)))
    model.W[1].weight.data.mul_(2)
    assert_same(gradients(model), gradients(network_like(model)))


@pytest.mark.parametrize("batch", [4, 5])
@pytest.mark.parametrize("layer", [1, 2])
def test_the_sum_of_the_state_is_not_that_of_an_earlier_one(batch, layer) -> None:
    model, ours = network(batch=batch), Newton()
    ours.compile_for(model)
    for moved in (lambda: ours.relax(model, 2), lambda: model.u[layer].add_(0.1)):
        moved()
        wanted = sum(u.double().sum() for u in model.u[1:])
        assert float(model.state_sum()) == pytest.approx(float(wanted), rel=1e-5, abs=1e-3)
    for bad in (float("inf"), float("nan")):
        model.u[layer][batch - 1, 6] = bad
        assert not torch.isfinite(model.state_sum())
        ours.relax(model, 1)
        assert not torch.isfinite(model.state_sum())
        model.reset_state()
        assert torch.isfinite(model.state_sum())


def test_a_feed_forward_pass_is_the_energy_s_own() -> None:
    for batch in (1, 8):
        model, ours = network(ConditionalGaussian, batch=batch), Euler(init="feedforward")
        plain = network_like(model)
        ours.compile_for(model)
        assert ours.free_phase(model).reason is StopReason.EXACT
        plain.set_C_target(None)
        plain.fast_init()
        assert_same(model.u, plain.u)


@pytest.mark.parametrize("energy", ENERGIES)
def test_looking_in_between_changes_no_bit(energy) -> None:
    """What is kept from one phase to the next is what the next would compute."""
    ends = []
    for look in (False, True):
        torch.manual_seed(1)  # the weights are alike
        model, ours = network(energy, batch=6), Newton(init="auto")
        target = model.c_energy.target
        ours.compile_for(model)
        with model.holding_weights():
            ours.free_phase(model)
            if look:
                model.total_gradient(model.free_layers("gradient"))
            model.set_C_target(target)
            ours.relax(model, 3, measure=look)
        ends.append(model.u[1:])
    for one, other in zip(*ends, strict=True):
        assert torch.equal(one, other)


def gradients(model):
    out = [torch.zeros_like(p) for p in model.parameters()]
    model.contrast_(None, model.u, 1.0, out)
    return out


def replaced(model):
    model.W[1].weight.data = 2 * model.W[1].weight.data
    return model


def resized(model):
    state, batch, target = [u.clone() for u in model.u], model.batch_size, model.c_energy.target
    model.resize(batch + 2)
    model.set_C_target(None)
    model.u = [torch.cat([layer, layer[:2]]) for layer in state]
    Newton().relax(model, 1)
    model.u = state
    model.set_C_target(target)
    return model


def given_a_cost(model):
    target = model.c_energy.target
    model.c_energy = COSTS[1](model.c_energy.beta)
    model.set_C_target(target)
    return model


CHANGES = {
    "other memory for the weights": replaced,
    "another batch size and back": resized,
    "another cost": given_a_cost,
    "a copy": copy.deepcopy,
    "a copy through a file": lambda model: pickle.loads(pickle.dumps(model)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("batch", [8, 9])
def test_a_loop_is_bound_to_the_tensors_that_there_are(change, batch) -> None:
    """What was looked up for the phase before is not used for other tensors."""
    model, ours = network(batch=batch), Newton()
    ours.compile_for(model)
    ours.relax(model, 1)
    before = [layer.clone() for layer in model.u]
    changed = CHANGES[change](model)
    assert changed is model or not changed.buffers_of.bound
    exact = network_like(changed)
    ours.relax(changed, 3)
    Newton().relax(exact, 3)
    assert_same(changed.u, exact.u)
    if changed is not model:
        assert all(torch.equal(a, b) for a, b in zip(model.u, before, strict=True))


def test_loops_that_are_no_longer_used_are_let_go() -> None:
    model, ours = network(), Newton()
    ours.compile_for(model)
    for i in range(3 * loops.MOST):
        model.c_energy.beta = 0.1 + 0.01 * i
        ours.relax(model, 1)
        assert len(model.buffers_of.bound) <= loops.MOST
