"""The compiled loops against the plain operations, against double precision, and in a run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from running import QUICK, rows, train

from eqprop import ConditionalGaussian, CrossEntropy, RestrictedHopfield, SquaredError
from eqprop.relaxation import Euler, Newton, StopReason, fused
from eqprop.relaxation.replay import ReplayedSolver

SIZES = [12, 301, 7]  # no multiple of what a vector register or a pass holds
ENERGIES = (ConditionalGaussian, RestrictedHopfield)
COSTS = (SquaredError, CrossEntropy)
SOLVERS = {"euler": lambda: Euler(dt=0.3, tau=1.5), "newton": lambda: Newton(dt=0.9)}


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    fused.compile_loops()


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def network(energy=RestrictedHopfield, cost=SquaredError, batch=9, phi=("sigmoid", "tanh"), seed=0):
    """An energy with its input clamped, in a random state, nudged towards random targets."""
    generator = torch.Generator().manual_seed(seed)
    model = energy(SIZES, cost(0.7), batch, ["identity", *phi])
    model.clamp_layer(0, torch.randn(batch, SIZES[0], generator=generator))
    for layer in model.u[1:]:
        layer.normal_(generator=generator)
    classes = torch.randint(SIZES[-1], (batch,), generator=generator)
    model.set_C_target(torch.nn.functional.one_hot(classes, SIZES[-1]).float())
    return model


def relaxed(solver: ReplayedSolver, model, n_steps: int = 8) -> list[torch.Tensor]:
    start = [layer.clone() for layer in model.u]
    solver.relax(model, n_steps)
    end = [layer.clone() for layer in model.u[1:]]
    model.u = start
    return end


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


def network_like(model):
    """The same network and state in float64."""
    double = type(model)(SIZES, model.c_energy, model.batch_size, list(model.phi))
    double = double.double()
    for mine, theirs in zip(double.parameters(), model.parameters(), strict=True):
        mine.data.copy_(theirs.data)
    double.clamp_layer(0, model.u[0].double())
    for mine, theirs in zip(double.u, model.u, strict=True):
        mine.copy_(theirs)
    return double


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


def assert_same(found, wanted) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() <= 1e-5 * (1 + other.abs().max())


def other_class(model):
    class Mine(type(model)):
        def energy(self, u):
            return 2 * super().energy(u)

    model.__class__ = Mine


CHANGES = {
    "a clamped output": lambda model: model.clamp_layer(2, model.u[2].clone()),
    "a free input": lambda model: model.release_layer(0),
    "a class of somebody's own": other_class,
    "double precision": lambda model: model.double(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_keeps_its_hands_off(change) -> None:
    """There the plain operations run, with the same result as if nothing had been compiled."""
    model, ours = network(), Newton()
    ours.compile_for(model)
    CHANGES[change](model)
    assert not fused.applies(model)
    for found, wanted in zip(relaxed(ours, model), relaxed(Newton(), model), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("solver", "fit"),
    [
        (Euler(adaptive=True), network()),
        (Euler(tol=1e-3), network()),
        (Euler(), network(phi=("relu", "relu"))),
        (Newton(), ConditionalGaussian([4, 5, 5, 3], SquaredError(1.0), 2, ["tanh"] * 3)),
        (Newton(), ConditionalGaussian([4, 5, 300], SquaredError(1.0), 2, ["tanh"] * 2)),
    ],
)
def test_nothing_is_compiled_where_it_is_of_no_use(solver, fit) -> None:
    solver.compile_for(fit)
    assert not solver.compiled


def test_only_a_long_epoch_pays() -> None:
    model = network()  # 308 units that move
    solver = Euler(n_relax=10, n_nudged=10)
    enough = fused.PAYS / (20 * 308)
    assert fused.pays(solver, model, int(enough) + 1)
    assert not fused.pays(solver, model, int(enough) - 1)
    gaussian = network(ConditionalGaussian)  # its free phase takes no steps
    assert not fused.pays(solver, gaussian, int(enough * 1.9))
    assert fused.pays(solver, gaussian, int(enough * 2) + 1)


@pytest.mark.parametrize("model", ["gaussian", "hopfield"])
def test_a_run_learns_the_same(model: str, tmp_path: Path) -> None:
    """Rounding apart: the accuracies of two short runs agree."""
    both = []
    for compile_ in ("true", "false"):
        folder = f"hydra.run.dir={tmp_path / compile_}"
        overrides = ("dataset.limit=500", "trainer.epochs=2", "trainer.log_every=5")
        ran = train(
            *QUICK, *overrides, f"model={model}", f"device.compile={compile_}", folder, cwd=tmp_path
        )
        ran.succeeded()
        both.append(rows(tmp_path / compile_))
    assert len(both[0]) == len(both[1]) > 2
    for mine, plain in zip(*both, strict=True):
        assert mine.keys() == plain.keys()
        for name in mine.keys() - {"time/train_s", "time/eval_s", "throughput/examples_per_s"}:
            slack = 0.02 if name.startswith("accuracy") else 0.0
            assert mine[name] == pytest.approx(plain[name], rel=2e-3, abs=slack + 1e-4), name
