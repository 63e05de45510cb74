"""The compiled loops against the plain operations and against double precision."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from networks import assert_by_autograd, weight_gradient

from eqprop import ConditionalGaussian, CrossEntropy, RestrictedHopfield, SquaredError
from eqprop.estimator import CenteredEquilibriumPropagation, EquilibriumPropagation
from eqprop.relaxation import Euler, Newton, StopReason, compiled

SIZES = [12, 301, 7]  # no multiple of what a vector register or a pass holds
ENERGIES = (ConditionalGaussian, RestrictedHopfield)
COSTS = (SquaredError, CrossEntropy)
SOLVERS = {"euler": lambda: Euler(dt=0.3, tau=1.5), "newton": lambda: Newton(dt=0.9)}
ESTIMATORS = (EquilibriumPropagation, CenteredEquilibriumPropagation)


@pytest.fixture(scope="module", autouse=True)
def _loops() -> None:
    compiled.load()


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def network(
    energy=RestrictedHopfield, cost=SquaredError, batch=9, phi=("sigmoid", "tanh"), sizes=SIZES
):
    """An energy with its input clamped, in a random state, nudged towards random targets."""
    generator = torch.Generator().manual_seed(0)
    model = energy(sizes, cost(0.7), batch, ["identity", *phi])
    model.clamp_layer(0, torch.randn(batch, sizes[0], generator=generator))
    for layer in model.u[1:]:
        layer.normal_(generator=generator)
    classes = torch.randint(sizes[-1], (batch,), generator=generator)
    model.set_C_target(torch.nn.functional.one_hot(classes, sizes[-1]).float())
    return model


def by_loops(solver="euler"):
    found = SOLVERS[solver]() if isinstance(solver, str) else solver
    found.compiled = True
    return found


def relaxed(solver, model, n_steps: int = 8) -> list[torch.Tensor]:
    start = [layer.clone() for layer in model.u]
    solver.relax(model, model.state, model.nudge(), n_steps)
    end = [layer.clone() for layer in model.u[1:]]
    model.u = start
    return end


def in_double(model):
    """The same network and state in float64."""
    double = type(model)(model.dimensions, model.c_energy, model.batch_size, list(model.phi))
    double = double.double()
    for mine, theirs in zip(double.parameters(), model.parameters(), strict=True):
        mine.data.copy_(theirs.data)
    double.clamp_layer(0, model.u[0].double())
    for mine, theirs in zip(double.u, model.u, strict=True):
        mine.copy_(theirs)
    return double


def assert_near(found, wanted, slack: float = 1e-5) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() <= slack * (1 + other.abs().max())


@pytest.mark.parametrize("phi", list(itertools.product(("sigmoid", "tanh"), repeat=2)))
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("energy", ENERGIES)
def test_it_goes_where_the_plain_steps_go_in_double_precision(energy, cost, solver, phi) -> None:
    for batch, nudged in itertools.product((1, 2, 9), (False, True)):
        model = network(energy, cost, batch, phi)
        if not nudged:
            model.set_C_target(None)
        assert compiled.applies(model, model.state, model.nudge())
        loops = relaxed(by_loops(solver), model)
        assert_near(loops, relaxed(SOLVERS[solver](), in_double(model)), 2e-5)


@pytest.mark.parametrize("sizes", [[5, 20, 3], [5, 32, 32], [5, 1025, 1], [1, 1, 1]], ids=str)
@pytest.mark.parametrize("batch", [1, 4, 5])
@pytest.mark.parametrize("energy", ENERGIES)
def test_any_size_that_it_takes(sizes, batch, energy) -> None:
    """Narrow hidden layers, whose drive lies column by column; more than one block of units."""
    model = network(energy, SquaredError, batch, ("tanh", "identity"), sizes)
    for solver in SOLVERS:
        loops = relaxed(by_loops(solver), model)
        assert_near(loops, relaxed(SOLVERS[solver](), in_double(model)), 2e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_result_does_not_depend_on_threads_or_company(solver, threads) -> None:
    model, ours = network(batch=41), by_loops(solver)
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
    model, ours = network(energy, batch=4), by_loops(solver)
    fine = relaxed(ours, model)
    model.u[2][1, 3] = bad
    broken = relaxed(ours, model)
    assert not broken[1][1].isfinite().all()
    others = [0, 2, 3]
    for found, wanted in zip(broken, fine, strict=True):
        assert torch.equal(found[others], wanted[others])


def test_rates_are_right_to_the_last_digits() -> None:
    from eqprop.relaxation.compiled import blocks

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
    model, ours = network(energy, batch=batch), by_loops()
    with model.state.held():
        ours.relax(model, model.state, model.nudge(), 3)
        computed = []
        value_ = type(model.phi[1]).value_

        def watched(phi, u, out):
            computed.append(u.shape[1])
            return value_(phi, u, out)

        with monkeypatch.context() as patch:
            patch.setattr(type(model.phi[1]), "value_", watched)
            kept = weight_gradient(model, model.state)
        assert SIZES[1] not in computed
    double = in_double(model)
    assert_near(kept, weight_gradient(double, double.state))


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("batch", [4, 5])
def test_nothing_stale_is_left_within_a_hold(energy, solver, batch) -> None:
    """After looks, and phases by loops and by plain steps, in turn."""
    model, ours, plain = network(energy, batch=batch), by_loops(solver), SOLVERS[solver]()
    state = model.state
    with state.held():
        for phase in (ours, ours, plain, ours, plain, plain, ours):
            weight_gradient(model, state)
            model.gradient(state, model.nudge())
            model.energies(state)
            double = in_double(model)
            phase.relax(model, state, model.nudge(), 2)
            SOLVERS[solver]().relax(double, double.state, double.nudge(), 2)
            assert_near(model.u, double.u, 2e-5)
            assert_near(weight_gradient(model, state), weight_gradient(double, double.state))
            assert_near([model.energies(state)], [double.energies(double.state)])
            for layer in (1, 2):
                found = model.gradient(state, model.nudge())[layer]
                assert_near([found], [double.gradient(double.state, double.nudge())[layer]], 1e-4)
    double = in_double(model)
    assert_by_autograd(double, double.state, double.nudge())


@pytest.mark.parametrize("energy", ENERGIES)
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("init", ["auto", "zeros"])
@pytest.mark.parametrize("batch", [6, 7])
def test_a_whole_estimate(energy, cost, estimator, solver, init, batch) -> None:
    """Free and nudged phases and the weight gradient, measured or not; twice, other weights."""
    model = network(energy, cost, batch)
    ours, plain = by_loops(solver), SOLVERS[solver]()
    for phase in (ours, plain):
        phase.init = "zeros" if energy is RestrictedHopfield else init
    target, ep = model.c_energy.target, estimator(0.5)
    for _ in range(2):
        double = in_double(model)
        exact = estimator(0.5).estimate(
            double, double.state, plain, model.c_energy, target.double()
        )
        for measure in (False, True):
            found = ep.estimate(model, model.state, ours, model.c_energy, target, measure=measure)
            assert_near([found.output], [exact.output], 2e-5)
            assert_near(found.gradients, exact.gradients, 5e-5)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.2)


def test_a_feed_forward_pass_is_the_energy_s_own() -> None:
    for batch in (1, 8):
        model, ours = network(ConditionalGaussian, batch=batch), by_loops(Euler(init="feedforward"))
        plain = in_double(model)
        assert ours.free_phase(model, model.state).reason is StopReason.EXACT
        plain.fast_init()
        assert_near(model.u, plain.u)


@pytest.mark.parametrize("energy", ENERGIES)
def test_looking_in_between_changes_no_bit(energy) -> None:
    """What is kept from one phase to the next is what the next would compute."""
    ends = []
    for look in (False, True):
        torch.manual_seed(1)  # the weights are alike
        model, ours = network(energy, batch=6), by_loops(Newton(init="auto"))
        with model.state.held():
            ours.free_phase(model, model.state)
            if look:
                model.gradient(model.state)
                weight_gradient(model, model.state)
            ours.relax(model, model.state, model.nudge(), 3, measure=look)
        ends.append(model.u[1:])
    for one, other in zip(*ends, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("energy", ENERGIES)
def test_another_state_changes_no_bit(energy) -> None:
    """An evaluation by the same loops, with another batch size, between two phases."""
    ends = []
    for evaluate in (False, True):
        torch.manual_seed(1)
        model, ours = network(energy, batch=6), by_loops("newton")
        with model.state.held():
            ours.relax(model, model.state, model.nudge(), 2)
            if evaluate:
                for batch in (5, 6):
                    other = model.new_state(batch)
                    other.clamp(0, torch.ones(batch, SIZES[0]))
                    ours.free_phase(model, other, measure=True)
            ours.relax(model, model.state, model.nudge(), 2)
        ends.append(model.u[1:])
    for one, other in zip(*ends, strict=True):
        assert torch.equal(one, other)


def replaced(model):
    model.W[1].weight.data = 2 * model.W[1].weight.data
    return model


def resized(model):
    state, batch, target = [u.clone() for u in model.u], model.batch_size, model.c_energy.target
    model.resize(batch + 2)
    model.set_C_target(None)
    model.u = [torch.cat([layer, layer[:2]]) for layer in state]
    by_loops("newton").relax(model, model.state, None, 1)
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
    model, ours = network(batch=batch), by_loops(Newton())
    ours.relax(model, model.state, model.nudge(), 1)
    before = [layer.clone() for layer in model.u]
    changed = CHANGES[change](model)
    exact = in_double(changed)
    ours.relax(changed, changed.state, changed.nudge(), 3)
    Newton().relax(exact, exact.state, exact.nudge(), 3)
    assert_near(changed.u, exact.u)
    if changed is not model:
        assert all(torch.equal(a, b) for a, b in zip(model.u, before, strict=True))


# ---------------------------------------------------------------------- where they do not apply


def other_class(model):
    class Mine(type(model)):
        def energy(self, u):
            return 2 * super().energy(u)

    model.__class__ = Mine


HANDS_OFF = {
    "a clamped output": lambda model: model.clamp_layer(2, model.u[2].clone()),
    "a free input": lambda model: model.release_layer(0),
    "a class of somebody's own": other_class,
    "double precision": lambda model: model.double(),
    "an edge without a bias": lambda model: setattr(model.W[1], "bias", None),
}


@pytest.mark.parametrize("change", HANDS_OFF)
def test_it_keeps_its_hands_off(change) -> None:
    """There the plain operations run, with the same result as if nothing had been compiled."""
    model, ours = network(), by_loops(Euler())
    HANDS_OFF[change](model)
    assert not compiled.applies(model, model.state, model.nudge())
    for found, wanted in zip(relaxed(ours, model), relaxed(Euler(), model), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("solver", [Euler(adaptive=True), Euler(clip=[0.0, 1.0]), Newton(tol=1e-3)])
def test_steps_that_no_loop_takes_are_taken_plainly(solver) -> None:
    model, plain = network(), copy.copy(solver)
    wanted = relaxed(plain, model)
    for found, other in zip(relaxed(by_loops(solver), model), wanted, strict=True):
        assert torch.equal(found, other)


def test_it_fits_only_what_it_knows() -> None:
    assert compiled.fits(network())
    assert not compiled.fits(network(phi=("relu", "relu")))
    assert not compiled.fits(ConditionalGaussian([4, 5, 5, 3], SquaredError(1.0), 2, ["tanh"] * 3))
    assert not compiled.fits(ConditionalGaussian([4, 5, 300], SquaredError(1.0), 2, ["tanh"] * 2))


def test_only_a_long_epoch_pays() -> None:
    model = network()  # 308 units that move
    enough = compiled.loops.PAYS / (20 * 308)
    assert compiled.pays(model, 20, int(enough) + 1)
    assert not compiled.pays(model, 20, int(enough) - 1)
