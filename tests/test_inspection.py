"""Curves, confusions and mistakes: right by another way of computing them, and nobody notices."""

from __future__ import annotations

import logging
import random
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_model, one_hot
from sklearn.metrics import confusion_matrix
from test_training import SIZES, splits, training

from eqprop.data.picture import picture
from eqprop.relaxation import Anderson, Euler, Exact, Newton
from eqprop.tracking.items import ConfusionMatrix, Curve, Mistakes
from eqprop.training import snapshot
from eqprop.training.inspection import Inspection, confusion, curves, mistakes

SOLVERS = {
    "euler": Euler(dt=0.1, n_relax=9),
    "euler with a tolerance": Euler(dt=0.3, n_relax=60, tol=0.05),
    "adaptive euler": Euler(dt=0.9, n_relax=9, adaptive=True),
    "newton": Newton(n_relax=5),
    "newton with a tolerance": Newton(n_relax=60, tol=0.05),
    "anderson": Anderson(n_relax=8),
    "exact": Exact(n_relax=4),
}


# the trace of a relaxation


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("nudged", [False, True])
def test_a_trace_is_the_relaxation_looked_at(name: str, nudged: bool) -> None:
    solver = SOLVERS[name]
    model = make_model("hopfield", [6, 9, 4], 7, "hard_sigmoid", dtype=torch.float32, beta=0.7)
    model.set_C_target(one_hot(7, 4, torch.float32) if nudged else None)
    start = [layer.clone() for layer in model.u]
    result = solver.relax(model, solver.n_relax, measure=True)
    relaxed = [layer.clone() for layer in model.u]
    model.u = start
    energy, residual = solver.trace(model, solver.n_relax)
    assert all(torch.equal(a, b) for a, b in zip(model.u, relaxed, strict=True))
    assert len(energy) == len(residual) == result.steps + 1
    assert energy[-1] - energy[0] == pytest.approx(result.energy_change, abs=1e-5)
    assert residual[-1] == result.residual


@torch.no_grad()
def test_a_trace_s_numbers_are_those_of_single_steps() -> None:
    model = make_model("gaussian", [6, 9, 4], 7, beta=0.7)
    model.set_C_target(one_hot(7, 4))
    start = [layer.clone() for layer in model.u]
    energies, residuals = [float(model.E.mean())], []
    for _ in range(6):
        residuals.append(model.u_step(0.1, 1.0))
        energies.append(float(model.E.mean()))
    model.u = start
    energy, residual = Euler(dt=0.1, n_relax=6).trace(model, 6)
    assert energy == pytest.approx(energies)
    assert residual[:-1] == pytest.approx(residuals)


# looking changes nothing


class Wild(Euler):
    """Draws from every generator there is."""

    def __init__(self) -> None:
        super().__init__(dt=0.1, n_relax=15, init="normal")
        self.mine = np.random.default_rng(5)

    def advance(self, model: Any, work: Any, n_steps: int) -> None:
        noise = random.random() + np.random.rand() + self.mine.random() + float(torch.rand(()))
        model.u[-1].add_(1e-3 * noise)
        super().advance(model, work, n_steps)


@pytest.mark.parametrize("kind", ["gaussian", "hopfield"])
def test_looking_changes_no_weight_and_no_random_number(kind: str) -> None:
    captured, shown = [], []

    def show(name: str, item: object, step: int) -> None:
        shown.append((name, step))

    for inspection in (Inspection(), Inspection(show, curves_every=1)):
        torch.manual_seed(1), np.random.seed(2), random.seed(3)
        run = training(kind, solver=Wild(), inspection=inspection, eval_every=2, epochs=3)
        run.model.generator = torch.Generator().manual_seed(4)
        run.fit()
        captured.append((*snapshot.capture(run), [layer.clone() for layer in run.model.u]))
    assert len(shown) == 2 * 3 + 2
    (meta, state, u), (seen_meta, seen, seen_u) = captured
    for name in ("seconds",):
        del meta[name], seen_meta[name]
    assert meta == seen_meta
    assert all(torch.equal(state["model"][name], seen["model"][name]) for name in state["model"])
    assert all(torch.equal(a, b) for a, b in zip(u, seen_u, strict=True))
    for name in ("python", "numpy"):
        assert state["random"][name] == seen["random"][name]
    assert torch.equal(state["random"]["torch"], seen["random"]["torch"])
    private, seen_private = state["random"]["private"], seen["random"]["private"]
    assert private["solver.mine"] == seen_private["solver.mine"]
    assert torch.equal(private["model.generator"], seen_private["model.generator"])


def test_curves_of_every_few_epochs_and_of_the_last() -> None:
    found: list[Curve] = []

    def show(name: str, item: object, step: int) -> None:
        if isinstance(item, Curve):
            assert (name, step) == (f"curves/{item.phase}", item.step)
            found.append(item)

    run = training("hopfield", inspection=Inspection(show, curves_every=2), epochs=5)
    run.fit()
    assert [(c.epoch, c.step, c.phase) for c in found] == [
        (epoch, 3 * epoch, phase) for epoch in (2, 4, 5) for phase in ("free", "nudged")
    ]
    for free, nudged in zip(found[::2], found[1::2], strict=True):
        assert len(free.energy) == run.solver.n_relax + 1
        assert len(nudged.energy) == run.solver.n_nudged + 1
        assert all(a > b for a, b in zip(free.energy, free.energy[1:], strict=False))
        assert nudged.energy[0] > free.energy[-1], (
            "the nudge adds β C ≥ 0 where the free phase ends"
        )


def test_the_free_phase_that_needs_no_relaxation_is_one_point() -> None:
    run = training("gaussian", solver=Euler(dt=0.1, n_relax=5))
    (_, free), (_, nudged) = list(curves(run))
    assert (free.energy, free.residual) == ((0.0,), (0.0,))
    assert len(nudged.energy) == 6


class Unwilling(Euler):
    def trace(self, *_: Any) -> Any:
        raise OSError("no\nway")


def test_what_cannot_be_looked_at_costs_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    shown: list[str] = []
    inspection = Inspection(lambda name, *_: shown.append(name), curves_every=1)
    run = training(solver=Unwilling(dt=0.1, n_relax=5), inspection=inspection, epochs=3)
    run.fit()
    (record,) = [r for r in caplog.records if r.name == "eqprop.training.inspection"]
    assert record.levelno == logging.WARNING
    assert "OSError: no way" in record.getMessage()
    assert shown == ["confusion/test", "mistakes/test"]


# the test set


def outputs_of(run: Any) -> torch.Tensor:
    outputs: list[torch.Tensor] = []
    run.evaluate(run.data.test, lambda output: outputs.append(output.clone()))
    return torch.cat(outputs)


def test_the_confusion_matrix_is_scikit_learn_s() -> None:
    run = training(epochs=1)
    run.fit()
    outputs = outputs_of(run)
    matrix = confusion(run, outputs)
    truth = confusion_matrix(run.data.test.y, outputs.argmax(1), labels=range(SIZES[-1]))
    assert np.array_equal(matrix.counts, truth)
    assert matrix.classes == ("0", "1", "2")
    share = np.trace(matrix.counts) / np.sum(matrix.counts)
    assert share == pytest.approx(run.last["accuracy/test"])


def test_mistakes_are_the_wrong_ones_that_cost_most() -> None:
    run = training(data=splits(n_test=60))
    n = len(run.data.test)
    outputs = torch.randn(n, SIZES[-1], dtype=torch.float64)
    found = mistakes(run, outputs).worst
    expected = []
    for index, (output, y) in enumerate(
        zip(outputs.tolist(), run.data.test.y.tolist(), strict=True)
    ):
        predicted = int(np.argmax(output))
        if predicted != y:
            powers = np.exp(output) / np.exp(output).sum()
            cost = -np.log(powers[y])
            expected.append((cost, index, y, predicted, powers[predicted], powers[y]))
    expected.sort(reverse=True)
    assert len(found) == 25 < len(expected)
    for mistake, (cost, index, y, predicted, probability, of_y) in zip(
        found, expected, strict=False
    ):
        assert (mistake.index, mistake.target, mistake.predicted) == (index, y, predicted)
        assert mistake.cost == pytest.approx(cost)
        assert mistake.probability == pytest.approx(probability)
        assert mistake.target_probability == pytest.approx(of_y)
        assert mistake.picture is None, "samples of six numbers are no pictures"


def test_a_perfect_network_makes_no_mistakes() -> None:
    run = training()
    outputs = one_hot_of(run)
    assert mistakes(run, outputs).worst == ()
    assert np.count_nonzero(confusion(run, outputs).counts) == SIZES[-1]


def one_hot_of(run: Any) -> torch.Tensor:
    return torch.nn.functional.one_hot(run.data.test.y, SIZES[-1]).double()


def test_the_end_shows_the_test_set_even_where_nothing_was_left_to_train() -> None:
    found: dict[str, object] = {}
    run = training(inspection=Inspection(lambda name, item, _: found.update({name: item})))
    run.at.epoch, run.best = run.epochs + 1, {run.objective_name: 0.5}
    run.fit()
    matrix, worst = found["confusion/test"], found["mistakes/test"]
    assert isinstance(matrix, ConfusionMatrix)
    assert isinstance(worst, Mistakes)
    assert np.sum(matrix.counts) == len(run.data.test)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((2, 3), (2, 3)), ((3, 2, 4), (2, 4, 3)), ((2, 4, 3), (2, 4, 3)), ((1, 2, 3), (2, 3))],
)
def test_a_picture_goes_from_black_to_white(
    shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    x = torch.linspace(-0.5, 2.5, int(np.prod(shape)))
    found = picture(x, shape)
    assert found is not None
    assert (found.shape, found.dtype) == (expected, np.uint8)
    assert (found.min(), found.max()) == (0, 255)


def test_no_picture() -> None:
    assert picture(torch.rand(6), (6,)) is None
    assert picture(torch.rand(24), (2, 3, 4)) is None
    flat = picture(torch.ones(4), (2, 2))
    assert flat is not None
    assert not flat.any()
