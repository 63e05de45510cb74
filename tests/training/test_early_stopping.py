"""Early stopping, and what callbacks of the configuration may add, remember and end.

Oracle: the rule written out by hand over the recorded rows; the bytes of a run left alone.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toys import recorded, same, splits, training, weights

from eqprop.run import checkpoint
from eqprop.run.errors import RunError
from eqprop.training import snapshot
from eqprop.training.callback import Callback
from eqprop.training.early_stopping import EarlyStopping
from eqprop.training.loop import Training
from eqprop.training.session import Row, Session


class Saving(Callback):
    """A checkpoint after each epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_recorded(self, session: Session, row: Row, improved: bool) -> None:
        meta, state = snapshot.capture(session)
        checkpoint.write(self.folder / f"{row['epoch']}.pt", meta, state)


def stopping(folder: Path, epochs: int = 30, **keys: Any) -> Training:
    """A restless training that early stopping watches and that saves every epoch."""
    stop = EarlyStopping(**keys)
    run = training(
        "gaussian",
        stop,
        Saving(folder),
        data=splits(n_train=40, n_validation=33),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=2.0),
        epochs=epochs,
        log_every=1000,
    )
    run.session.callbacks = {"early_stopping": stop}
    return run


def last_by_hand(values: list[float], patience: int, delta: float, sign: int) -> int:
    """The epoch after which the rule ends a training with these values."""
    best, waited = -float("inf"), 0
    for epoch, value in enumerate(values, 1):
        if sign * value > best + delta:
            best, waited = sign * value, 0
        else:
            waited += 1
        if waited == patience:
            return epoch
    return len(values)


@pytest.mark.parametrize(
    ("keys", "name", "sign"),
    [
        ({"patience": 2}, "accuracy/validation", 1),
        ({"patience": 3, "monitor": "cost/validation"}, "cost/validation", -1),
        ({"patience": 2, "monitor": "cost/train", "mode": "max"}, "cost/train", 1),
        ({"patience": 1, "min_delta": 0.02}, "accuracy/validation", 1),
    ],
    ids=str,
)
def test_it_ends_where_the_rule_says(
    keys: dict[str, Any], name: str, sign: int, tmp_path: Path
) -> None:
    whole = recorded(stopping(tmp_path, patience=1000))
    values = [row[name] for row in whole]
    last = last_by_hand(values, keys["patience"], keys.get("min_delta", 0.0), sign)
    assert 1 < last < len(whole)
    run = stopping(tmp_path, **keys)
    rows = recorded(run)
    assert [row[name] for row in rows] == values[:last]
    assert run.session.stopped is not None
    assert name in run.session.stopped
    assert "accuracy/test" in rows[-1]  # as after any last epoch
    assert run.session.summary()["last/epoch"] == last
    for epoch in range(1, last + 1):  # from whatever checkpoint it goes on: the same end
        again = stopping(tmp_path / "again", **keys)
        (tmp_path / "again").mkdir(exist_ok=True)
        snapshot.restore(again.session, checkpoint.read(tmp_path / f"{epoch}.pt"))
        assert [row[name] for row in recorded(again)] == values[epoch:last]
        assert again.session.stopped == run.session.stopped
        assert same(weights(again), weights(run))
        assert again.session.summary() == run.session.summary()


def test_epochs_without_an_evaluation_do_not_count(tmp_path: Path) -> None:
    run = stopping(tmp_path, patience=2)
    run.eval_every = 3
    rows = recorded(run)
    values = [row["accuracy/validation"] for row in rows if "accuracy/validation" in row]
    assert len(rows) == 3 * last_by_hand(values, 2, 0.0, 1) < 30


def test_a_monitor_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"'accuracy/validaton'.*did you mean accuracy/validation"):
        stopping(tmp_path, monitor="accuracy/validaton").fit()


def test_the_test_set_ends_no_run_that_has_a_validation_split() -> None:
    part = SimpleNamespace(monitor="accuracy/test", constructor=EarlyStopping)
    for share in (0.0, 0.1):
        dataset = SimpleNamespace(validation=share)
        config = SimpleNamespace(callbacks={"mine": part}, dataset=dataset)
        if share == 0.0:
            EarlyStopping.check_config(config)
            continue
        with pytest.raises(ValueError, match=r"callbacks\.mine\.monitor='accuracy/test'"):
            EarlyStopping.check_config(config)


class Recording(Callback):
    """Puts a value into each epoch's row."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def on_epoch(self, session: Session, row: Row, improved: bool) -> None:
        row["mine"] = self.value


def test_what_a_callback_puts_into_the_row_is_recorded_and_may_be_watched() -> None:
    stop = EarlyStopping(monitor="mine", patience=3, mode="min")
    rows = recorded(training("gaussian", Recording(0.5), stop, epochs=20, log_every=1000))
    assert [row["mine"] for row in rows] == 4 * [0.5]


@pytest.mark.parametrize("value", ["good", True, torch.tensor(1.0)], ids=repr)
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(RunError, match="epoch 1: mine: "):
        training("gaussian", Recording(value)).fit()


def test_a_stop_within_an_epoch_ends_it_whole() -> None:
    class Stop(Callback):
        def on_step(self, session: Session, samples: int) -> None:
            if session.step == 4:
                session.stop("enough")

    run = training("gaussian", Stop(), epochs=9, eval_every=9, log_every=1000)
    rows = recorded(run)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert {"accuracy/validation", "accuracy/test", "cost/test"} <= rows[-1].keys()
