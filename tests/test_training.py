"""The loop against a loop written out by hand, over the same batches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from conftest import reference_of
from reference import PHI, Reference
from torch import Tensor

import eqprop
from eqprop.data import Data, Split, epoch_order
from eqprop.energy import EnergyBasedModel
from eqprop.estimator import CenteredEquilibriumPropagation, EquilibriumPropagation
from eqprop.relaxation import Euler
from eqprop.run.errors import RunError
from eqprop.training.loop import Row, Training

SIZES = [6, 8, 3]
LR, BETA, DT, STEPS = 0.5, 0.5, 0.1, 15


def splits(n_train: int = 23, n_validation: int = 11, n_test: int = 17) -> Data:
    """Classes that a network can tell apart, in float64."""
    generator = torch.Generator().manual_seed(4)

    def split(n: int) -> Split:
        y = torch.arange(n) % SIZES[-1]
        centres = 2 * torch.eye(SIZES[-1], SIZES[0], dtype=torch.float64)
        noise = torch.randn(n, SIZES[0], dtype=torch.float64, generator=generator)
        return Split(centres[y] + noise, y)

    validation = split(n_validation) if n_validation else None
    return Data(split(n_train), validation, split(n_test), SIZES[-1], 10, (SIZES[0],))


def training(kind: str = "gaussian", data: Data | None = None, **changes: Any) -> Training:
    """Two epochs of batches of 10, 10 and 3."""
    torch.manual_seed(1)
    energy = {"gaussian": eqprop.ConditionalGaussian, "hopfield": eqprop.RestrictedHopfield}[kind]
    phi = ["identity", "tanh", "tanh"]
    model: EnergyBasedModel = energy(SIZES, eqprop.CrossEntropy(BETA), 10, phi).double()
    model.generator = torch.Generator().manual_seed(2)
    parts: dict[str, Any] = {
        "solver": Euler(dt=DT, n_relax=STEPS),
        "estimator": EquilibriumPropagation(BETA),
        "optimizer": torch.optim.SGD(model.parameters(), lr=LR),
        "data": data or splits(),
        "seed": 5,
        "epochs": 2,
        "log_every": 1,
    }
    return Training(model=model, **{**parts, **changes})


def recorded(run: Training) -> list[Row]:
    rows: list[Row] = []
    run.record = rows.append
    run.fit()
    return rows


def weights(run: Training) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in run.model.parameters()]


def reference(model: EnergyBasedModel) -> Reference:
    phi = [PHI["identity"], PHI["tanh"], PHI["tanh"]]
    return reference_of(model, "gaussian", phi, "cross_entropy")


def by_hand(network: Reference, data: Data, estimator: str, epochs: int) -> list[float]:
    """Train `network` in place with plain SGD; returns each epoch's training accuracy."""
    accuracies = []
    for epoch in range(1, epochs + 1):
        order, correct = epoch_order(len(data.train), 5, epoch), 0
        for start in range(0, len(order), 10):
            batch = order[start : start + 10]
            x, labels = data.train.x[batch], data.train.y[batch]
            y = torch.nn.functional.one_hot(labels, SIZES[-1]).double()
            free = network.feedforward(x)
            correct += int((free[-1].argmax(1) == labels).sum())
            plus = network.relax(free, STEPS, DT, y=y, beta=BETA).u
            if estimator == "ep":
                gradients = network.contrast(plus, free, BETA)
            else:
                minus = network.relax(free, STEPS, DT, y=y, beta=-BETA).u
                gradients = network.contrast(plus, minus, 2 * BETA)
            parameters = [p for pair in zip(network.W, network.b, strict=True) for p in pair]
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= LR * gradient
        accuracies.append(correct / len(order))
    return accuracies


@pytest.mark.parametrize("estimator", ["ep", "ep_centered"])
def test_it_is_the_loop_by_hand(estimator: str) -> None:
    """Three batches an epoch, the last one smaller: weights, accuracies, energies."""
    kind = {"ep": EquilibriumPropagation, "ep_centered": CenteredEquilibriumPropagation}[estimator]
    run = training(estimator=kind(BETA))
    network = reference(run.model)
    before = [W.clone() for W in network.W]
    rows = recorded(run)
    accuracies = by_hand(network, run.data, estimator, epochs=2)
    expected = [p for pair in zip(network.W, network.b, strict=True) for p in pair]
    for mine, theirs in zip(weights(run), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(before[0], network.W[0], atol=1e-2)
    assert [row["accuracy/train"] for row in rows if "accuracy/train" in row] == accuracies


def test_evaluation_counts_every_sample() -> None:
    run = training()
    rows = recorded(run)
    network = reference(run.model)
    assert run.data.validation is not None
    for name, split in (("validation", run.data.validation), ("test", run.data.test)):
        predicted = network.feedforward(split.x)[-1].argmax(1)
        assert rows[-1][f"accuracy/{name}"] == float((predicted == split.y).double().mean())
    assert rows[-1]["energy/test"] == pytest.approx(0, abs=1e-20)


def test_evaluation_by_relaxation() -> None:
    """Where the free phase relaxes, `energy/test` is the mean energy at its end."""
    run = training(solver=Euler(dt=DT, n_relax=STEPS, init="zeros"))
    accuracy, energy = run.evaluate(run.data.test)
    network, x = reference(run.model), run.data.test.x
    zeros = [x, *(torch.zeros(len(x), n, dtype=x.dtype) for n in SIZES[1:])]
    free = network.relax(zeros, STEPS, DT).u
    assert energy == pytest.approx(float(network.energy(free).mean()), rel=1e-12)
    assert accuracy == float((free[-1].argmax(1) == run.data.test.y).double().mean())


def test_the_size_of_an_evaluation_batch_changes_nothing() -> None:
    found = []
    for size in (1, 7, 1000):
        run = training(eval_batch_size=size)
        found.append(([row for row in recorded(run) if "accuracy/test" in row], weights(run)))
    for rows, parameters in found[1:]:
        for name in ("accuracy/validation", "accuracy/test"):
            assert rows[-1][name] == found[0][0][-1][name]
        assert all(map(torch.equal, parameters, found[0][1]))


@pytest.mark.parametrize("kind", ["gaussian", "hopfield"])
def test_evaluation_leaves_the_training_alone(kind: str) -> None:
    """Its noise is its own: the state starts from N(0, 1) in both."""
    solver = Euler(dt=DT, n_relax=STEPS, init="normal")
    runs = [training(kind, epochs=5, eval_every=every, solver=solver) for every in (1, 5)]
    often, seldom = (recorded(run) for run in runs)
    assert all(map(torch.equal, weights(runs[0]), weights(runs[1])))
    assert [row["epoch"] for row in seldom if "accuracy/validation" in row] == [5]
    assert [row["epoch"] for row in often if "accuracy/validation" in row] == [1, 2, 3, 4, 5]
    for name in ("accuracy/validation", "accuracy/test", "energy/test"):
        assert often[-1][name] == seldom[-1][name]
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    runs[0].evaluate(runs[0].data.test)
    assert torch.equal(torch.randn(3), expected)


def test_the_last_epoch_is_always_evaluated() -> None:
    rows = recorded(training(epochs=3, eval_every=2))
    assert [row["epoch"] for row in rows if "accuracy/validation" in row] == [2, 3]
    assert [row["epoch"] for row in rows if "accuracy/test" in row] == [3]


def test_what_is_measured_is_of_the_step() -> None:
    """The norms in a row are those of this step's gradient and of the weights after it."""
    run = training(epochs=1, log_every=2)
    norms: dict[str, float] = {}

    def record(row: Row) -> None:
        if "energy/free" in row:
            assert row["step"] == 2
            for name, parameter in run.model.named_parameters():
                assert parameter.grad is not None
                norms[f"gradient_norm/{name}"] = float(parameter.grad.norm())
                norms[f"weight_norm/{name}"] = float(parameter.detach().norm())
            assert norms == {name: value for name, value in row.items() if "_norm/" in name}

    run.record = record
    run.fit()
    assert len(norms) == 8


def test_measuring_does_not_change_the_training() -> None:
    runs = [training("hopfield", log_every=every) for every in (1, 1000)]
    for run in runs:
        run.fit()
    assert all(map(torch.equal, weights(runs[0]), weights(runs[1])))


@pytest.mark.parametrize("n_validation", [0, 11])
def test_the_objective_is_the_best(n_validation: int) -> None:
    run = training(data=splits(n_validation=n_validation), epochs=6)
    rows = [row for row in recorded(run) if "accuracy/train" in row]
    name = "accuracy/validation" if n_validation else "accuracy/test"
    accuracies = [row[name] for row in rows]
    assert len(accuracies) == 6
    assert run.objective == max(accuracies)
    summary = run.summary()
    assert (summary[f"best/{name}"], summary[f"last/{name}"]) == (max(accuracies), accuracies[-1])


def test_it_learns() -> None:
    run = training(data=splits(n_train=90, n_test=60), epochs=20)
    run.fit()
    assert run.last["accuracy/test"] > 0.75


def test_numbers_that_are_not_finite_end_the_run() -> None:
    run = training("hopfield", solver=Euler(dt=1e200, n_relax=STEPS))
    with pytest.raises(RunError, match=r"step 1\b.* is not finite; lower dynamics.dt"):
        run.fit()


def test_every_sample_is_used_and_counted() -> None:
    advanced: list[int] = []
    run = training(epochs=1, advance=advanced.append)
    rows = recorded(run)
    assert advanced == [10, 10, 3]
    assert [row["step"] for row in rows] == [1, 2, 3, 3]
    last = rows[-1]
    assert last["throughput/examples_per_s"] * last["time/train_s"] == pytest.approx(23)
    assert math.isclose(last["accuracy/train"] * 23, round(last["accuracy/train"] * 23))
