"""Curves, confusions and mistakes: right by another way of computing them, and nobody notices."""

from __future__ import annotations

import logging
import random
from typing import Any

import numpy as np
import pytest
import torch
from running import untimed
from sklearn.metrics import confusion_matrix
from toys import BETA, SIZES, recorded, splits, training

import eqprop
from eqprop.data import Data, Split
from eqprop.data.picture import mosaic, picture
from eqprop.estimator import CenteredEquilibriumPropagation, Estimator
from eqprop.network import Conv, Dense, Edge, Hopfield, Network, Nudge, State
from eqprop.network.activation import one_a_layer
from eqprop.relaxation import Anderson, Euler, Exact, Newton
from eqprop.tracking.base import ConfusionMatrix, Curve, Mistakes, Picture
from eqprop.training import snapshot
from eqprop.training.diagnostics import (
    Diagnostics,
    confusion,
    curves,
    filters,
    mistakes,
    pictures,
)
from eqprop.training.loop import Training
from eqprop.training.session import Session, evaluate

SOLVERS = {
    "euler": Euler(dt=0.1, n_relax=9),
    "euler with a tolerance": Euler(dt=0.3, n_relax=60, tol=0.05),
    "adaptive euler": Euler(dt=0.9, n_relax=9, adaptive=True),
    "clipped euler": Euler(dt=0.3, n_relax=9, clip="auto"),
    "newton": Newton(n_relax=5),
    "newton with a tolerance": Newton(n_relax=60, tol=0.05),
    "anderson": Anderson(n_relax=8),
    "exact": Exact(n_relax=4),
}


# the trace of a relaxation


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("nudged", [False, True])
def test_a_trace_is_the_relaxation_looked_at(name: str, nudged: bool) -> None:
    solver, cost = SOLVERS[name], eqprop.SquaredError()
    phi = ["identity", "hard_sigmoid", "hard_sigmoid"]
    network = eqprop.RestrictedHopfield([6, 9, 4], cost, 7, phi)
    x, start = torch.randn(7, 6), [torch.randn(7, n) for n in (9, 4)]
    nudge = Nudge(cost, torch.eye(4)[torch.arange(7) % 4], torch.tensor(0.7)) if nudged else None

    def state() -> State:
        made = network.new_state(7)
        made.clamp(0, x)
        made.u[1:] = start
        return made

    relaxed, looked_at = state(), state()
    result = solver.relax(network, relaxed, nudge, solver.n_relax, measure=True)
    energy, residual = solver.trace(network, looked_at, nudge, solver.n_relax)
    assert all(map(torch.equal, looked_at.u, relaxed.u))
    assert len(energy) == len(residual) == result.steps + 1
    assert energy[-1] - energy[0] == pytest.approx(result.energy_change, abs=1e-5)
    assert residual[-1] == result.residual


@torch.no_grad()
def test_a_trace_s_numbers_are_those_of_single_steps() -> None:
    """By the published names' own steps."""
    cost = eqprop.SquaredError(0.7)
    model = eqprop.ConditionalGaussian([6, 9, 4], cost, 7, ["tanh", "tanh"]).double()
    x, target = torch.randn(7, 6).double(), torch.eye(4)[torch.arange(7) % 4].double()
    model.clamp_layer(0, x)
    model.set_C_target(target)
    state = model.new_state(7)
    state.clamp(0, x)
    state.u[1:] = model.u[1:]
    energies, residuals = [float(model.E.mean())], []
    for _ in range(6):
        residuals.append(model.u_step(0.1, 1.0))
        energies.append(float(model.E.mean()))
    nudge = Nudge(cost, target, torch.tensor(0.7).double())
    energy, residual = Euler(dt=0.1, n_relax=6).trace(model, state, nudge, 6)
    assert energy == pytest.approx(energies)
    assert residual[:-1] == pytest.approx(residuals)


# looking changes nothing


class Wild(Euler):
    """Draws from every generator there is."""

    def __init__(self) -> None:
        super().__init__(dt=0.1, n_relax=15, init="normal")
        self.mine = np.random.default_rng(5)

    def advance(self, network: Network, state: State, *args: Any) -> None:
        noise = random.random() + np.random.rand() + self.mine.random() + float(torch.rand(()))
        state.u[-1].add_(1e-3 * noise)
        state.moved(2)
        super().advance(network, state, *args)


@pytest.mark.parametrize("kind", ["gaussian", "hopfield"])
def test_looking_changes_no_weight_and_no_random_number(kind: str) -> None:
    captured, shown = [], []

    def show(name: str, item: object, step: int) -> None:
        shown.append((name, step))

    for diagnostics in (None, Diagnostics(show, curves_every=1)):
        torch.manual_seed(1), np.random.seed(2), random.seed(3)
        watching = [diagnostics] if diagnostics else []
        run = training(kind, *watching, solver=Wild(), eval_every=2, epochs=3)
        rows = untimed(recorded(run))
        layers = [layer.clone() for layer in run.session.state(10).u]
        captured.append((rows, *snapshot.capture(run.session), layers))
    assert len(shown) == 2 * 3 + 2
    (rows, meta, state, u), (seen_rows, seen_meta, seen, seen_u) = captured
    assert rows == seen_rows
    del meta["seconds"], seen_meta["seconds"]
    assert meta == seen_meta
    assert all(torch.equal(state["model"][name], seen["model"][name]) for name in state["model"])
    assert all(map(torch.equal, u, seen_u))
    for name in ("python", "numpy"):
        assert state["random"][name] == seen["random"][name]
    assert torch.equal(state["random"]["torch"], seen["random"]["torch"])
    private, seen_private = state["random"]["private"], seen["random"]["private"]
    assert private["solver.mine"] == seen_private["solver.mine"]
    assert torch.equal(private["session.generator"], seen_private["session.generator"])


def found_by(kind: str, epochs: int, every: int, **changes: Any) -> tuple[Session, list[Curve]]:
    found: list[Curve] = []

    def show(name: str, item: object, step: int) -> None:
        if isinstance(item, Curve):
            assert (name, step) == (f"curves/{item.phase}", item.step)
            found.append(item)

    run = training(kind, Diagnostics(show, curves_every=every), epochs=epochs, **changes)
    run.fit()
    return run.session, found


def test_curves_of_every_few_epochs_and_of_the_last() -> None:
    session, found = found_by("hopfield", epochs=5, every=2)
    assert [(c.epoch, c.step, c.phase) for c in found] == [
        (epoch, 3 * epoch, phase) for epoch in (2, 4, 5) for phase in ("free", "nudged")
    ]
    for free, nudged in zip(found[::2], found[1::2], strict=True):
        assert len(free.energy) == session.solver.n_relax + 1
        assert len(nudged.energy) == session.solver.n_nudged + 1
        assert all(a > b for a, b in zip(free.energy, free.energy[1:], strict=False))
        assert nudged.energy[0] > free.energy[-1], (
            "the nudge adds β C ≥ 0 where the free phase ends"
        )


def test_the_estimator_says_which_phases_are_looked_at() -> None:
    """A centered one ends with the phase nudged towards the target; without phases none is."""
    estimator: Estimator = CenteredEquilibriumPropagation(BETA)
    _, found = found_by("hopfield", epochs=1, every=1, estimator=estimator)
    assert [c.phase for c in found] == ["free", "nudged"]
    assert found[1].energy[0] > found[0].energy[-1]

    class Phaseless(CenteredEquilibriumPropagation):
        def nudges(self, *_: Any) -> Any:
            return iter(())

    _, found = found_by("hopfield", epochs=1, every=1, estimator=Phaseless(BETA))
    assert [c.phase for c in found] == ["free"]


def test_the_free_phase_that_needs_no_relaxation_is_one_point() -> None:
    run = training("gaussian", solver=Euler(dt=0.1, n_relax=5))
    (_, free), (_, nudged) = list(curves(run.session, 1))
    assert (free.energy, free.residual) == ((0.0,), (0.0,))
    assert len(nudged.energy) == 6


class Unwilling(Euler):
    def trace(self, *_: Any) -> Any:
        raise OSError("no\nway")


def test_what_cannot_be_looked_at_costs_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    shown: list[str] = []
    diagnostics = Diagnostics(lambda name, *_: shown.append(name), curves_every=1)
    training("gaussian", diagnostics, solver=Unwilling(dt=0.1, n_relax=5), epochs=3).fit()
    (record,) = [r for r in caplog.records if r.name == "eqprop.training.diagnostics"]
    assert record.levelno == logging.WARNING
    assert "OSError: no way" in record.getMessage()
    assert shown == ["confusion/test", "mistakes/test"]


# the test set


def outputs_of(run: Training) -> torch.Tensor:
    outputs: list[torch.Tensor] = []
    evaluate(run.session, run.session.data.test, lambda output: outputs.append(output.clone()))
    return torch.cat(outputs)


def test_the_confusion_matrix_is_scikit_learn_s() -> None:
    run = training(epochs=1)
    run.fit()
    outputs = outputs_of(run)
    matrix = confusion(run.session, outputs)
    truth = confusion_matrix(run.session.data.test.y, outputs.argmax(1), labels=range(SIZES[-1]))
    assert np.array_equal(matrix.counts, truth)
    assert matrix.classes == ("0", "1", "2")
    share = np.trace(matrix.counts) / np.sum(matrix.counts)
    assert share == pytest.approx(run.session.last["accuracy/test"])


def test_mistakes_are_the_wrong_ones_that_cost_most() -> None:
    run = training(data=splits(n_test=60))
    n = len(run.session.data.test)
    outputs = torch.randn(n, SIZES[-1], dtype=torch.float64)
    found = mistakes(run.session, outputs).worst
    expected = []
    for index, (output, y) in enumerate(
        zip(outputs.tolist(), run.session.data.test.y.tolist(), strict=True)
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
    assert mistakes(run.session, outputs).worst == ()
    assert np.count_nonzero(confusion(run.session, outputs).counts) == SIZES[-1]


def one_hot_of(run: Training) -> torch.Tensor:
    return torch.nn.functional.one_hot(run.session.data.test.y, SIZES[-1]).double()


def test_the_end_shows_the_test_set_even_where_nothing_was_left_to_train() -> None:
    found: dict[str, object] = {}
    run = training("gaussian", Diagnostics(lambda name, item, _: found.update({name: item})))
    session = run.session
    session.at.epoch, session.best = session.epochs + 1, {session.objective_name: 0.5}
    run.fit()
    matrix, worst = found["confusion/test"], found["mistakes/test"]
    assert isinstance(matrix, ConfusionMatrix)
    assert isinstance(worst, Mistakes)
    assert np.sum(matrix.counts) == len(run.session.data.test)


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


# pictures of the network


def images(colours: int, *edges: Edge) -> Training:
    """A training of such edges in a row on random pictures of 6 × 6."""
    shapes = [edges[0].in_shape, *(edge.out_shape for edge in edges)]
    for source, edge in enumerate(edges):
        edge.source, edge.target = source, source + 1
    network = Network(shapes, one_a_layer(["tanh"] * len(edges), len(shapes)), edges, Hopfield())
    x, y = torch.randn(20, colours, 6, 6).double(), torch.arange(20) % 3
    split = Split(x, y)
    data = Data(split, None, split, 3, 10, (colours, 6, 6)).shaped(shapes[0])
    return training(network=network.double(), data=data, solver=Euler(dt=0.2, n_relax=4))


def tile(pixels: np.ndarray, size: tuple[int, int], columns: int, i: int) -> np.ndarray:
    """The i-th picture in a mosaic, enlarged or not, by its place alone."""
    zoom = max(pixels.shape[1] // ((size[1] + 1) * columns + 1), 1)
    assert np.array_equal(pixels, pixels[::zoom, ::zoom].repeat(zoom, 0).repeat(zoom, 1))
    y, x = ((n + 1) * place + 1 for n, place in zip(size, divmod(i, columns), strict=True))
    return pixels[::zoom, ::zoom][y : y + size[0], x : x + size[1]]


def shades(weights: torch.Tensor) -> np.ndarray:
    values = weights.detach().numpy()
    return 255 * (values - values.min()) / (values.max() - values.min())


def alike(pixels: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(pixels - expected).max() < 0.51)  # rounded


@pytest.mark.parametrize("colours", [1, 3])
def test_the_pixels_of_filters_are_the_weights(colours: int) -> None:
    conv = Conv((colours, 6, 6), 5, kernel=3)
    run = images(colours, conv, Dense((5, 4, 4), 3))
    name, found = next(pictures(run.session))
    assert (name, type(found)) == ("filters/1", Picture)
    expected = shades(conv.weight).transpose(0, 2, 3, 1)
    for i in range(5):  # in rows of three
        of_one = tile(found.pixels, (3, 3), 3, i)
        assert alike(of_one.reshape(3, 3, colours), expected[i])


def test_the_pixels_of_states_are_the_relaxed_layer_s() -> None:
    run = images(1, Conv((1, 6, 6), 20, kernel=3), Conv((20, 4, 4), 2), Dense((2, 2, 2), 3))
    (_, _), (name, found) = list(pictures(run.session))
    assert name == "states/1"
    session = run.session
    state = session.network.new_state(8, session.evaluation_generator())
    state.clamp(0, session.data.train.x[:8])
    session.solver.free_phase(session.network, state)
    expected = shades(state.u[1][:, :16])
    for sample in range(8):
        for channel in range(16):
            of_one = tile(found.pixels, (4, 4), 16, 16 * sample + channel)
            assert alike(of_one, expected[sample, channel])


@pytest.mark.parametrize("colours", [1, 3])
def test_the_rows_of_a_dense_layer_are_pictures(colours: int) -> None:
    dense = Dense((36 * colours,), 70)
    ((name, found),) = list(pictures(images(colours, dense, Dense((70,), 3)).session))
    assert name == "filters/1"
    rows = shades(dense.weight[:64]).reshape(64, colours, 6, 6).transpose(0, 2, 3, 1)
    assert alike(tile(found.pixels, (6, 6), 8, 63).reshape(6, 6, colours), rows[63])


def test_what_is_no_picture_is_not_shown() -> None:
    assert list(pictures(training().session)) == []  # samples of six numbers
    assert filters(Conv((2, 6, 6), 4), (2, 6, 6)) is None  # two colours
    assert filters(Conv((1, 6, 6), 4, kernel=1), (1, 6, 6)) is None  # one pixel
    assert filters(Dense((6,), 4), (1, 6, 6)) is None
    assert mosaic(torch.zeros(1, 1, 2, 2), 1).min() == 0  # all alike


def test_pictures_are_shown_at_the_end() -> None:
    shown: list[tuple[str, int]] = []
    run = images(1, Conv((1, 6, 6), 2), Dense((2, 4, 4), 3))
    run.callbacks = [
        Diagnostics(lambda name, item, step: shown.append((name, step)), curves_every=1)
    ]
    run.fit()
    assert [(name, step) for name, step in shown if name[0] in "fs"] == [
        ("filters/1", 4),
        ("states/1", 4),
    ]
