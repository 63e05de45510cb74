"""Free phases that go on from an earlier state: the last batch's, or each sample's own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tape import Tape
from torch import Tensor
from toys import BETA, DT, LR, STEPS, network, recorded, same, splits, training, weights

import eqprop
from eqprop.data import one_hot
from eqprop.estimator import CenteredEquilibriumPropagation, EquilibriumPropagation, Estimator
from eqprop.relaxation import Euler
from eqprop.run import checkpoint
from eqprop.run.checkpoint import CheckpointError
from eqprop.training import snapshot
from eqprop.training.callback import Callback
from eqprop.training.loop import Training
from eqprop.training.session import Row, Session, evaluate
from eqprop.training.step import CapturedStep

STARTS = ("previous", "per_example")
EPOCHS = 3


def solver(init: Any) -> Euler:
    return Euler(dt=DT, n_relax=STEPS, n_nudged=4, init=init)


def started(init: str, *callbacks: Callback, **changes: Any) -> Training:
    parts = {"solver": solver(init), "epochs": EPOCHS, "log_every": 5, **changes}
    return training("hopfield", *callbacks, **parts)


def by_hand(init: str, estimator: Estimator, n_train: int = 23) -> list[Tensor]:
    """The weights after such a training, with new states that are filled by hand."""
    model, data, cost = network("hopfield"), splits(n_train), eqprop.CrossEntropy()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    own = [torch.zeros(n_train, size, dtype=torch.float64) for size in (8, 3)]
    last: list[Tensor] = []
    for epoch in range(1, EPOCHS + 1):
        for x, y, samples in data.epoch(5, epoch):
            state = model.new_state(len(x))
            state.carries = True
            state.clamp(0, x)
            if init == "per_example":
                state.u[1:] = [layer[samples] for layer in own]
            elif last and len(last[0]) == len(x):
                state.u[1:] = last
            target = one_hot(y, 3, x.dtype)
            estimate = estimator.estimate(model, state, solver(init), cost, target)
            last = [layer.clone() for layer in state.u[1:]]
            for layer, ended in zip(own, last, strict=True):
                layer[samples] = ended
            for p, gradient in zip(model.parameters(), estimate.gradients, strict=True):
                p.grad = gradient
            optimizer.step()
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("init", STARTS)
@pytest.mark.parametrize("n_train", [23, 20, 7], ids=["smaller last", "even", "one batch"])
@pytest.mark.parametrize("kind", [EquilibriumPropagation, CenteredEquilibriumPropagation])
def test_it_is_what_one_does_by_hand(init: str, n_train: int, kind: Any) -> None:
    run = started(init, data=splits(n_train), estimator=kind(BETA))
    run.fit()
    assert same(weights(run), by_hand(init, kind(BETA), n_train))


def test_each_start_is_another_training() -> None:
    """The test of the test above: where a phase starts does show in the weights."""
    found = []
    for init in (*STARTS, "zeros"):
        run = started(init)
        run.fit()
        found.append(weights(run))
    assert not any(same(found[i], found[i - 1]) for i in range(3))


@pytest.mark.parametrize("init", STARTS)
def test_an_evaluation_starts_from_zeros_and_disturbs_nothing(init: str) -> None:
    run = started(init)
    run.fit()
    session, before = run.session, snapshot.capture(run.session)[1]
    found = evaluate(session, session.data.test)
    assert same(before["u"], snapshot.capture(session)[1]["u"])
    session.solver = solver("zeros")
    assert evaluate(session, session.data.test) == found


class Saving(Callback):
    """Keeps what would be saved at each step, and at each end of an epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_step(self, session: Session, samples: int) -> None:
        checkpoint.write(self.folder / f"{session.step}.pt", *snapshot.capture(session))

    def on_epoch(self, session: Session, row: Row, improved: bool) -> None:
        checkpoint.write(self.folder / f"{session.step}-end.pt", *snapshot.capture(session))


@pytest.mark.parametrize("init", STARTS)
@pytest.mark.parametrize("n_train", [23, 20, 7], ids=["smaller last", "even", "one batch"])
def test_it_goes_on_with_the_same_bytes(init: str, n_train: int, tmp_path: Path) -> None:
    whole = started(init, Saving(tmp_path), data=splits(n_train))
    whole.fit()
    for path in sorted(tmp_path.glob("*.pt")):
        rest = started(init, data=splits(n_train))
        snapshot.restore(rest.session, checkpoint.read(path))
        rest.fit()
        for name in ("u", "parts", "model"):
            ours, theirs = (snapshot.capture(run.session)[1][name] for run in (rest, whole))
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("init", STARTS)
def test_a_captured_step_goes_on_as_well(init: str) -> None:
    tape, data = Tape(), splits(n_train=123)
    plain = started(init, data=data)
    captured = started(init, data=data, take_step=CapturedStep(tape))
    recorded(plain), recorded(captured)
    assert same(weights(plain), weights(captured))
    assert tape.replayed > 20


def test_how_much_memory_the_samples_take_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        started("per_example", data=splits(n_train=5000)).train_epoch()
    lines = [r.getMessage() for r in caplog.records if "states of" in r.getMessage()]
    assert lines == ["0.4 MB keep the states of 5000 samples"]  # 11 float64 numbers each


def test_states_of_other_samples_are_refused(tmp_path: Path) -> None:
    run = started("per_example")
    run.train_epoch()
    checkpoint.write(tmp_path / "x.pt", *snapshot.capture(run.session))
    other = started("per_example", data=splits(24))
    with pytest.raises(CheckpointError, match="number of samples than 24"):
        snapshot.restore(other.session, checkpoint.read(tmp_path / "x.pt"))
