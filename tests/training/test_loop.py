"""The loop against a loop written out by hand, over the same batches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pairs import reference_of
from reference import PHI, Reference
from running import untimed
from toys import BETA, DT, LR, SIZES, STEPS, recorded, same, splits, training, weights

from eqprop.data import Data, epoch_order
from eqprop.estimator import CenteredEquilibriumPropagation, EquilibriumPropagation
from eqprop.network import Network
from eqprop.relaxation import Euler
from eqprop.run.errors import RunError
from eqprop.training.callback import Callback
from eqprop.training.session import Row, Session, evaluate


def reference(model: Network) -> Reference:
    phi = [PHI["identity"], PHI["tanh"], PHI["tanh"]]
    return reference_of(model, "gaussian", phi, "cross_entropy")


def restless(parameters: Any) -> torch.optim.Optimizer:
    """Steps so large that accuracies rise and fall."""
    return torch.optim.SGD(parameters, lr=3.0)


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
    network = reference(run.session.network)
    before = [W.clone() for W in network.W]
    rows = recorded(run)
    accuracies = by_hand(network, run.session.data, estimator, epochs=2)
    expected = [p for pair in zip(network.W, network.b, strict=True) for p in pair]
    for mine, theirs in zip(weights(run), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(before[0], network.W[0], atol=1e-2)
    assert [row["accuracy/train"] for row in rows if "accuracy/train" in row] == accuracies


def test_evaluation_counts_every_sample() -> None:
    run = training()
    rows = recorded(run)
    network = reference(run.session.network)
    data = run.session.data
    assert data.validation is not None
    for name, split in (("validation", data.validation), ("test", data.test)):
        predicted = network.feedforward(split.x)[-1].argmax(1)
        assert rows[-1][f"accuracy/{name}"] == float((predicted == split.y).double().mean())
    assert rows[-1]["energy/test"] == pytest.approx(0, abs=1e-20)


def test_evaluation_by_relaxation() -> None:
    """Where the free phase relaxes, `energy/test` is the mean energy at its end."""
    run = training(solver=Euler(dt=DT, n_relax=STEPS, init="zeros"))
    accuracy, energy, cost = evaluate(run.session, run.session.data.test)
    network, x = reference(run.session.network), run.session.data.test.x
    zeros = [x, *(torch.zeros(len(x), n, dtype=x.dtype) for n in SIZES[1:])]
    free = network.relax(zeros, STEPS, DT).u
    assert energy == pytest.approx(float(network.energy(free).mean()), rel=1e-12)
    y = run.session.data.test.y
    assert accuracy == float((free[-1].argmax(1) == y).double().mean())
    assert cost == pytest.approx(float(torch.nn.functional.cross_entropy(free[-1], y)), rel=1e-12)


@pytest.mark.parametrize("kind", ["gaussian", "hopfield"])
@pytest.mark.parametrize("size", [1, 7, 10])
def test_the_size_of_an_evaluation_batch_changes_no_bit_of_the_training(
    kind: str, size: int
) -> None:
    """Of 10 as well, the size of the training's own batches: even then no buffer is shared."""
    found = []
    for eval_batch_size in (1000, size):
        solver = Euler(dt=DT, n_relax=STEPS, init="normal" if kind == "hopfield" else "auto")
        run = training(kind, eval_batch_size=eval_batch_size, solver=solver)
        rows = untimed(recorded(run))
        found.append(([row for row in rows if "energy/free" in row], rows[-1], weights(run)))
    (rows, last, parameters), (ours, our_last, our_parameters) = found
    assert ours == rows
    assert same(our_parameters, parameters)
    assert our_last["accuracy/train"] == last["accuracy/train"]
    for name in ("accuracy/validation", "accuracy/test"):  # of each sample by itself
        assert our_last[name] == last[name]


@pytest.mark.parametrize("kind", ["gaussian", "hopfield"])
def test_evaluation_leaves_the_training_alone(kind: str) -> None:
    """Its noise is its own: the state starts from N(0, 1) in both."""
    solver = Euler(dt=DT, n_relax=STEPS, init="normal")
    runs = [training(kind, epochs=5, eval_every=every, solver=solver) for every in (1, 5)]
    often, seldom = (recorded(run) for run in runs)
    assert same(weights(runs[0]), weights(runs[1]))
    assert [row["epoch"] for row in seldom if "accuracy/validation" in row] == [5]
    assert [row["epoch"] for row in often if "accuracy/validation" in row] == [1, 2, 3, 4, 5]
    for name in ("accuracy/validation", "accuracy/test", "energy/test"):
        assert often[-1][name] == seldom[-1][name]
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    evaluate(runs[0].session, runs[0].session.data.test)
    assert torch.equal(torch.randn(3), expected)


def test_the_last_epoch_is_always_evaluated() -> None:
    rows = recorded(training(epochs=5, eval_every=2))
    evaluated = [row for row in rows if "accuracy/validation" in row]
    assert [row["epoch"] for row in evaluated] == [2, 4, 5]
    best, tested = -1.0, []
    for row in evaluated:
        tested += [row["epoch"]] if row["accuracy/validation"] > best else []
        best = max(best, row["accuracy/validation"])
    assert [row["epoch"] for row in rows if "accuracy/test" in row] == sorted({*tested, 5})


def test_the_test_accuracy_of_the_best_is_of_its_weights() -> None:
    """Its weights are kept by the test, as the best epoch ends, and evaluated after the run."""
    held: list[dict[str, torch.Tensor]] = []

    class Hold(Callback):
        def on_epoch(self, session: Session, row: Row, improved: bool) -> None:
            if improved:
                held.append({k: v.clone() for k, v in session.network.state_dict().items()})

    parts = {"data": splits(n_train=40, n_test=40), "epochs": 12}
    for kind in ("gaussian", "hopfield"):
        run = training(kind, Hold(), optimizer=restless, **parts)
        rows = [row for row in recorded(run) if "accuracy/validation" in row]
        session, summary = run.session, run.session.summary()
        assert summary["best/epoch"] < summary["last/epoch"] == 12
        session.network.load_state_dict(held[-1])
        for split in ("validation", "test"):
            found = evaluate(session, getattr(session.data, split))
            assert summary[f"best/accuracy/{split}"] == found.accuracy
            assert summary[f"best/cost/{split}"] == found.cost
        chosen = rows[int(summary["best/epoch"]) - 1]
        assert summary["best/accuracy/train"] == chosen["accuracy/train"]


def test_the_training_cost_is_the_mean_over_the_epoch() -> None:
    """At a rate so small that no weight moves it is the cost of the first weights."""
    run = training(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-300))
    row = recorded(run)[-1]
    for split in ("train", "validation", "test"):
        found = evaluate(run.session, getattr(run.session.data, split))
        assert row[f"cost/{split}"] == pytest.approx(found.cost, rel=1e-12)
        assert row[f"accuracy/{split}"] == found.accuracy


def test_what_is_measured_is_of_the_step() -> None:
    """The norms in a row are those of this step's gradient and of the weights after it."""
    run = training(epochs=1, log_every=2)
    norms: dict[str, float] = {}

    def record(row: Row) -> None:
        if "energy/free" in row:
            assert row["step"] == 2
            for name, parameter in run.session.network.named_parameters():
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
    assert same(weights(runs[0]), weights(runs[1]))


@pytest.mark.parametrize("n_validation", [0, 11])
def test_the_objective_is_the_best(n_validation: int) -> None:
    run = training(data=splits(n_validation=n_validation), epochs=6)
    rows = [row for row in recorded(run) if "accuracy/train" in row]
    name = "accuracy/validation" if n_validation else "accuracy/test"
    accuracies = [row[name] for row in rows]
    assert len(accuracies) == 6
    assert run.session.best[run.session.objective_name] == max(accuracies)
    summary = run.session.summary()
    assert (summary[f"best/{name}"], summary[f"last/{name}"]) == (max(accuracies), accuracies[-1])


def test_it_learns() -> None:
    run = training(data=splits(n_train=90, n_test=60), epochs=20)
    run.fit()
    assert run.session.last["accuracy/test"] > 0.75


def test_numbers_that_are_not_finite_end_the_run() -> None:
    run = training("hopfield", solver=Euler(dt=1e200, n_relax=STEPS))
    with pytest.raises(RunError, match=r"step 1\b.* is not finite; lower dynamics.dt"):
        run.fit()


def test_every_sample_is_used_and_counted() -> None:
    advanced: list[int] = []

    class Counting(Callback):
        def on_step(self, session: Session, samples: int) -> None:
            advanced.append(samples)

    run = training("gaussian", Counting(), epochs=1)
    rows = recorded(run)
    assert advanced == [10, 10, 3]
    assert [row["step"] for row in rows] == [1, 2, 3, 3]
    last = rows[-1]
    assert last["throughput/examples_per_s"] * last["time/train_s"] == pytest.approx(23)
    assert math.isclose(last["accuracy/train"] * 23, round(last["accuracy/train"] * 23))
