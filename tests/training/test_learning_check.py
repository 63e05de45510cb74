"""What keeps a training from learning is told, once; looking changes nothing."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import SIZES, network, recorded, splits, training, weights

import eqprop
from eqprop.estimator import (
    Backprop,
    CenteredEquilibriumPropagation,
    ContrastiveHebbianLearning,
    EquilibriumPropagation,
    Estimate,
    Estimator,
    RandomSignEquilibriumPropagation,
)
from eqprop.relaxation import Euler, Newton, Solver
from eqprop.training.learning_check import LearningCheck
from eqprop.training.loop import Training
from eqprop.training.sampled_gradient import look

SHORT = Euler(dt=0.05, n_relax=4, init="normal")
LONG = Euler(dt=0.2, n_relax=200, init="normal")


def lines_of(run: Training, caplog: pytest.LogCaptureFixture) -> list[str]:
    with caplog.at_level(logging.WARNING, "eqprop"):
        run.fit()
    return [record.getMessage() for record in caplog.records]


def checked(*, kind: str = "hopfield", **changes: Any) -> Training:
    return training(kind, LearningCheck(), **{"log_every": 1000, **changes})


def test_drift_is_the_gradient_that_a_nudge_of_nothing_leaves() -> None:
    """By hand: the same phases with the cost scaled to 0, in the place of a cost that is 0."""

    class Nothing(eqprop.SquaredError):
        def cost(self, u_last: Tensor, target: Tensor) -> Tensor:
            return 0.0 * super().cost(u_last, target)

    run = training("hopfield", solver=SHORT, data=splits(n_train=23))
    session, found = run.session, {}
    signal = look(session, SHORT, session.estimator)
    x, y = session.data.train.x, session.data.train.y
    target = torch.nn.functional.one_hot(y, SIZES[-1]).double()
    for cost in (session.cost, Nothing()):
        state = session.network.new_state(len(x), torch.Generator().manual_seed(session.seed))
        state.clamp(0, x)
        estimate = session.estimator.estimate(session.network, state, SHORT, cost, target)
        found[cost] = [g.clone() for g in estimate.gradients]
    named = [name for name, _ in session.network.named_parameters()]
    for name, g, g0 in zip(named, found[session.cost], [*found.values()][1], strict=True):
        if g.dim() > 1:
            expected = float(g0.norm() / (g - g0).norm())
            assert signal.drift[name] == pytest.approx(expected)
            assert expected > 2.0 or name != "W.0.weight"


def test_a_phase_that_stops_early_is_told_once_with_what_helps(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (line,) = lines_of(checked(solver=SHORT, epochs=3), caplog)
    assert line.startswith("step 0: the phases stop before they are at rest")
    assert "choose dynamics=auto or dynamics.n_relax=" in line


def test_a_recommended_solver_that_does_not_help_is_not_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Euler(dt=0.05, n_relax=5, init="normal")
    monkeypatch.setattr("eqprop.training.learning_check.recommended_solver", lambda network: short)
    (line,) = lines_of(checked(solver=SHORT), caplog)
    assert "choose dynamics.n_relax=" in line


def test_nothing_is_missed_of_weights_that_are_frozen(caplog: pytest.LogCaptureFixture) -> None:
    run = checked(estimator=Backprop())
    first = run.session.network.W[0].weight.requires_grad_(False)
    before = first.clone()
    assert lines_of(run, caplog) == []
    assert torch.equal(first, before)
    assert list(look(run.session, run.session.solver, run.session.estimator).size) == ["W.1.weight"]


def test_so_many_steps_as_it_says_help(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = lines_of(checked(solver=SHORT), caplog)
    n = int(line.rpartition("n_relax=")[2].split()[0])
    caplog.clear()
    solver = Euler(dt=0.05, n_relax=n, init="normal")
    assert not any(line.startswith("step 0") for line in lines_of(checked(solver=solver), caplog))


def test_no_training_waits_long_for_what_helps(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of steps that have not been tried it says nothing."""
    monkeypatch.setattr("eqprop.training.learning_check.PATIENCE", 0.0)
    (line,) = lines_of(checked(solver=SHORT), caplog)
    assert "choose dynamics=auto or model.activation=hard_sigmoid" in line


@pytest.mark.parametrize("kind", ["gaussian", "hopfield"])
@pytest.mark.parametrize("solver", [LONG, Newton(n_relax=20, n_nudged=20)], ids=["euler", "newton"])
def test_a_phase_that_arrives_is_not(
    kind: str, solver: Solver, caplog: pytest.LogCaptureFixture
) -> None:
    assert lines_of(checked(kind=kind, solver=solver), caplog) == []


@pytest.mark.parametrize(
    "estimator",
    [Backprop(), ContrastiveHebbianLearning(), CenteredEquilibriumPropagation(0.5)],
    ids=lambda estimator: type(estimator).__name__,
)
def test_no_drift_where_no_nudge_makes_the_gradient_or_where_it_cancels(
    estimator: Estimator, caplog: pytest.LogCaptureFixture
) -> None:
    assert lines_of(checked(solver=SHORT, estimator=estimator), caplog) == []


class Dead(EquilibriumPropagation):
    """Gradients that are 0: all, or those of the first weights."""

    def __init__(self, which: slice) -> None:
        super().__init__(0.5)
        self.which = which

    def estimate(self, *args: Any, **options: Any) -> Estimate:
        found = super().estimate(*args, **options)
        for gradient in found.gradients[self.which]:
            gradient.zero_()
        return found


@pytest.mark.parametrize(
    ("which", "what"),
    [(slice(None), "every gradient is 0"), (slice(1), "the gradient of W.0.weight is lost")],
)
def test_gradients_of_zero_are_told(
    which: slice, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    (line,) = lines_of(checked(solver=LONG, estimator=Dead(which)), caplog)
    assert line.startswith(f"step 0: {what}")
    assert "choose dynamics=auto" in line


class Upwards(EquilibriumPropagation):
    """Learns to be wrong."""

    def estimate(self, *args: Any, **options: Any) -> Estimate:
        found = super().estimate(*args, **options)
        torch._foreach_neg_(found.gradients)
        return found


def test_a_cost_that_rises_is_told(caplog: pytest.LogCaptureFixture) -> None:
    (line,) = lines_of(checked(kind="gaussian", estimator=Upwards(0.5), epochs=3), caplog)
    assert "the cost of some training samples has risen" in line
    assert "optimizer.lr (0.5)" in line


class Guessing(EquilibriumPropagation):
    def estimate(self, *args: Any, **options: Any) -> Estimate:
        found = super().estimate(*args, **options)
        found.output.zero_()
        return found


def test_what_has_learnt_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    run = checked(kind="gaussian", estimator=Guessing(0.5), epochs=12)
    (line,) = lines_of(run, caplog)
    assert line.startswith("step 36: little is learnt: 34.8 % of the training samples are right")


@pytest.mark.parametrize("kind", ["gaussian", "hopfield"])
@pytest.mark.parametrize("init", ["normal", "previous", "per_example"])
def test_looking_changes_nothing(kind: str, init: Any) -> None:
    found = []
    for callbacks in ((), (LearningCheck(),)):
        solver = Euler(dt=0.1, n_relax=15, init=init)
        estimator = RandomSignEquilibriumPropagation(0.5)
        run = training(kind, *callbacks, solver=solver, estimator=estimator, epochs=4)
        rows = [{k: v for k, v in r.items() if k[0] != "t"} for r in recorded(run)]
        found.append((rows, weights(run)))
    assert found[0][0] == found[1][0]
    assert all(map(torch.equal, found[0][1], found[1][1]))


def test_what_cannot_be_looked_at_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Late(EquilibriumPropagation):
        def estimate(self, *args: Any, update: Any = None, **options: Any) -> Estimate:
            if update is None:
                raise TypeError("it moves the weights itself")
            return super().estimate(*args, **options)

    run = checked(solver=LONG, estimator=Late(0.5))
    assert lines_of(run, caplog) == []
    assert run.session.step == 6


def test_a_relu_that_starts_from_zeros_moves() -> None:
    """Where φ'(0) = 0 a state of zeros would feel nothing: it starts from the number beside it."""
    model = network("hopfield")
    relu = eqprop.RestrictedHopfield(SIZES, eqprop.SquaredError(), 4, ["identity", "relu", "relu"])
    state = relu.double().new_state(4)
    state.clamp(0, torch.randn(4, SIZES[0]).double())
    for solver in (Euler(dt=0.2, n_relax=50, init="zeros"), Newton()):
        solver.free_phase(relu, state)
        assert (state.u[1] > 1e-3).any()
    other = model.new_state(4)
    other.clamp(0, state.u[0])
    Newton(n_relax=1).initialise(model, other)
    assert not other.u[1].any(), "of the others all are zeros"
