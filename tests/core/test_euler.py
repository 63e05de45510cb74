"""Solvers against plain Euler steps: where they end, when they stop, what they report."""

from __future__ import annotations

import math

import pytest
import torch
from reference import COSTS, ENERGIES

from eqprop.relaxation import Euler, Relaxation, StopReason

each_kind = pytest.mark.parametrize("kind", sorted(ENERGIES))
each_cost = pytest.mark.parametrize("cost", sorted(COSTS))


def assert_states_close(actual, expected, relative):
    for a, e in zip(actual, expected, strict=True):
        assert (a - e).norm() <= relative * e.norm()


@pytest.mark.estimators
@each_kind
@each_cost
@pytest.mark.parametrize("phi", ["sigmoid", "tanh", "relu"])
@pytest.mark.parametrize(
    ("sizes", "batch"), [([50, 120, 80, 10], 20), ([30, 64, 10], 1), ([7, 33, 5, 21, 3], 13)]
)
def test_many_float32_steps_stay_at_the_reference(
    kind, cost, phi, sizes, batch, pair, state, targets
):
    model, ref = pair(kind, sizes, batch, phi, cost=cost, beta=0.7, dtype=torch.float32)
    y = targets(batch, sizes[-1])
    model.set_C_target(y.float())
    run = ref.relax(state(model), 60, 0.2, tau=1.5, y=y, beta=0.7)
    Euler(dt=0.2, tau=1.5).relax(model, model.state, model.nudge(), 60)
    assert_states_close(state(model), run.u, 1e-4)


@each_kind
@pytest.mark.parametrize("how", ["u_step", "u_relax", "solver", "solver_with_tol", "measured"])
def test_every_way_of_relaxing_is_the_same_euler(how, kind, pair, state, targets):
    """Through the residual or past it, measured or not: the same steps."""
    model, ref = pair(kind, [5, 9, 6, 4], 3, "tanh", beta=0.5)
    y = targets(3, 4)
    model.set_C_target(y)
    run = ref.relax(state(model), 12, 0.1, tau=2.0, y=y, beta=0.5)
    if how == "u_step":
        residuals = [model.u_step(0.1, 2.0) for _ in range(12)]
        assert residuals == pytest.approx(run.residuals)
    elif how == "u_relax":
        model.u_relax(0.1, 12, 0.0, 2.0)
    else:
        tol = 1e-12 if how == "solver_with_tol" else 0.0
        solver = Euler(0.1, 2.0, tol=tol)
        solver.relax(model, model.state, model.nudge(), 12, measure=how == "measured")
    for actual, expected in zip(state(model), run.u, strict=True):
        torch.testing.assert_close(actual, expected)


@each_kind
@pytest.mark.parametrize("nudged", [False, True])
def test_u_relax_returns_the_summed_change_of_energy(kind, nudged, pair, state, targets):
    model, ref = pair(kind, [5, 9, 6, 4], 3, "sigmoid", beta=0.5)
    y = targets(3, 4) if nudged else None
    model.set_C_target(y)
    start = state(model)
    end = ref.relax(start, 30, 0.1, y=y, beta=0.5).u
    change = model.u_relax(0.1, 30, 0.0, 1.0)
    assert isinstance(change, float)
    expected = (ref.total(end, y, 0.5) - ref.total(start, y, 0.5)).sum()
    assert change == pytest.approx(float(expected))


@each_kind
@pytest.mark.parametrize("tol", [1.0, 0.1, 1e-3])
@pytest.mark.parametrize("measure", [False, True])
def test_stopping_at_a_tolerance(kind, tol, measure, pair, state):
    """It ends after the step whose own residual is below tol, as u_relax does."""
    model, ref = pair(kind, [5, 9, 6, 4], 3, "tanh")
    start = state(model)
    run = ref.relax(start, 500, 0.2, tol=tol)
    result = Euler(0.2, tol=tol).relax(model, model.state, None, 500, measure)
    assert 1 < len(run.residuals) < 500
    assert result.steps == len(run.residuals)
    assert result.reason is StopReason.CONVERGED
    assert result.residual < tol
    for i in range(4):
        torch.testing.assert_close(model.u[i], run.u[i])
        model.u[i] = start[i]
    model.u_relax(0.2, 500, tol, 1.0)
    for i in range(4):
        torch.testing.assert_close(model.u[i], run.u[i])


@each_kind
def test_the_step_limit(kind, pair):
    model, _ = pair(kind, [5, 9, 4], 3, "tanh")
    result = Euler(0.1, tol=1e-9).relax(model, model.state, None, 7)
    assert isinstance(result, Relaxation)
    assert (result.steps, result.reason) == (7, StopReason.STEP_LIMIT)
    assert result.residual > 1e-9


@each_kind
def test_what_is_measured(kind, pair, state, targets):
    """Residual of the state where it stopped, and the batch mean of the change of F."""
    model, ref = pair(kind, [5, 9, 4], 3, "tanh", beta=0.5)
    y = targets(3, 4)
    model.set_C_target(y)
    start = state(model)
    result = Euler(0.1).relax(model, model.state, model.nudge(), 8, measure=True)
    end = ref.relax(start, 8, 0.1, y=y, beta=0.5).u
    at_end = ref.relax(end, 1, 0.1, y=y, beta=0.5).residuals[0]
    change = (ref.total(end, y, 0.5) - ref.total(start, y, 0.5)).mean()
    assert result.residual == pytest.approx(at_end)
    assert result.energy_change == pytest.approx(float(change))
    assert (result.steps, result.reason) == (8, StopReason.STEP_LIMIT)


@each_kind
def test_nothing_is_measured_unasked(kind, pair):
    model, _ = pair(kind, [5, 9, 4], 3, "tanh")
    result = Euler(0.1).relax(model, model.state, None, 4)
    assert (result.residual, result.energy_change) == (None, None)


@each_kind
@pytest.mark.parametrize("tol", [0.0, 1e-6])
def test_a_diverging_step_is_reported(kind, tol, pair):
    model, _ = pair(kind, [5, 9, 8, 4], 3, "softplus", dtype=torch.float32)
    result = Euler(dt=50.0, tol=tol).relax(model, model.state, None, 200, measure=True)
    assert result.reason is StopReason.NOT_FINITE
    assert not math.isfinite(result.residual)


def test_a_result_reads_as_a_sentence(pair):
    model, _ = pair("gaussian", [5, 9, 4], 3, "tanh")
    converged = Euler(0.2, tol=0.5).relax(model, model.state, None, 500)
    stopped = Euler(0.2).relax(model, model.state, None, 9, measure=True)
    model.u[1] = torch.full((3, 9), math.nan)
    broken = Euler(0.2, tol=0.1).relax(model, model.state, None, 9)
    texts = [str(result) for result in (converged, stopped, broken)]
    for text, result in zip(texts, (converged, stopped, broken), strict=True):
        assert str(result.steps) in text
        assert len(text.split()) > 4
        assert "\n" not in text
    assert "toleran" in texts[0]
    assert "limit" in texts[1]
    assert "finite" in texts[2]


@pytest.mark.parametrize("init", ["auto", "normal", "zeros", "feedforward"])
def test_first_state_of_the_gaussian(init, pair, state):
    model, ref = pair("gaussian", [5, 9, 6, 4], 3, "tanh")
    x, before = model.u[0].clone(), state(model)
    Euler(init=init).initialise(model, model.state)
    assert torch.equal(model.u[0], x), "the input is clamped"
    expected = ref.feedforward(x)
    for i in (1, 2, 3):
        if init in ("auto", "feedforward"):
            torch.testing.assert_close(model.u[i], expected[i])
        elif init == "zeros":
            assert not model.u[i].any()
        else:
            assert not torch.equal(model.u[i], before[i])


@pytest.mark.parametrize("init", ["auto", "normal", "zeros"])
def test_first_state_of_the_hopfield(init, pair, state):
    model, _ = pair("hopfield", [5, 90, 40], 60, "tanh")
    x = model.u[0].clone()
    Euler(init=init).initialise(model, model.state)
    assert torch.equal(model.u[0], x)
    spread = 1.0 if init == "normal" else 0.0
    for i in (1, 2):
        assert model.u[i].std().item() == pytest.approx(spread, abs=0.05)
        assert model.u[i].mean().item() == pytest.approx(0.0, abs=0.05)


def test_feedforward_of_the_hopfield_is_refused(pair):
    model, _ = pair("hopfield", [5, 9, 4], 3)
    with pytest.raises(ValueError, match="feedforward"):
        Euler(init="feedforward").check(model)


@each_kind
def test_reset_state_is_a_function_of_the_generator(kind, pair, state):
    model, _ = pair(kind, [5, 9, 4], 3)
    drawn = []
    for seed in (7, 7, 8):
        model.generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(len(drawn))
        model.reset_state()
        drawn.append(state(model)[1:])
    assert all(torch.equal(a, b) for a, b in zip(drawn[0], drawn[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(drawn[0], drawn[2], strict=True))
    before = torch.get_rng_state()
    model.reset_state()
    assert torch.equal(before, torch.get_rng_state()), "torch's own generator is left alone"


def test_defaults_of_euler():
    solver = Euler()
    assert (solver.dt, solver.tau, solver.n_relax, solver.tol) == (0.1, 1.0, 20, 0.0)
    assert Euler(n_relax=30).n_nudged == 30
    assert Euler(n_relax=30, n_nudged=4).n_nudged == 4
