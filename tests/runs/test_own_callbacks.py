"""Callbacks of the configuration, and weights of another run, by the command.

Oracle: the bytes of a run that was left alone; the weights of the run that they were taken from.
"""

from __future__ import annotations

import math
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from interrupted import killed, learnt
from running import QUICK, ROOT, Ran, rows, status, train

from eqprop.run import checkpoint

OWN = ("--config-dir", "conf")
BOTH = (*QUICK, "callbacks=[drift,early_stopping]", "callbacks.early_stopping.patience=2")
STILL = ("optimizer=sgd", "optimizer.lr=1e-30")  # no float32 weight moves


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    """A copy of the example's folder."""
    shutil.copytree(ROOT / "tests" / "example", tmp_path / "lab")
    return tmp_path / "lab"


def model_of(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    found: Any = checkpoint.read(folder / "checkpoints" / f"{name}.pt").tensors()["model"]
    return dict(found)


def test_they_add_numbers_end_a_run_and_go_on_after_a_kill(cwd: Path) -> None:
    words = (*OWN, *BOTH, "trainer.epochs=20", "optimizer.lr=0.3", "checkpoint.share=1")
    alone = train(*words, "hydra.run.dir=alone", cwd=cwd).succeeded()
    found = rows(cwd / "alone")
    epochs = [row for row in found if "time/train_s" in row]
    assert len(epochs) < 20
    assert all(row["drift"] > 0 for row in epochs)
    ended = status(cwd / "alone")
    assert (ended["state"], ended["exit_code"]) == ("done", 0)
    assert "accuracy/validation" in ended["reason"]
    assert ended["reason"] in alone.out
    assert "accuracy/test" in epochs[-1]
    step = epochs[1]["step"] + 3
    assert killed(step, *words, "hydra.run.dir=a", cwd=cwd).code == -signal.SIGKILL
    train("resume=a", cwd=cwd).succeeded()
    assert learnt(cwd / "a") == learnt(cwd / "alone")
    assert status(cwd / "a")["reason"] == ended["reason"]
    again = train("resume=a", "trainer.epochs=40", cwd=cwd).succeeded()
    assert "is done already" in again.out
    assert len(rows(cwd / "a")) == len(found)


def test_a_drift_is_measured_from_the_first_weights(cwd: Path) -> None:
    """And the callback ends the run where its own key says."""
    words = (*OWN, *QUICK, "callbacks=drift", "callbacks.drift.enough=0.2", "trainer.epochs=9")
    ran = train(*words, "checkpoint.keep=9", cwd=cwd).succeeded()
    still = train(*QUICK, *STILL, "hydra.run.dir=first", cwd=cwd).succeeded()
    first, last = model_of(still.cwd / "first"), model_of(ran.folders[0])
    distance = math.hypot(*(float((last[name] - first[name]).norm()) for name in first))
    assert ran_last(ran)["drift"] == pytest.approx(distance, rel=1e-5)
    assert distance > 0.2
    assert ran_last(ran)["epoch"] < 9


def ran_last(ran: Ran) -> dict[str, Any]:
    return rows(ran.folders[0])[-1]


WRONG = {
    "callbacks=drift callbacks.drift.enuogh=1": "did you mean callbacks.drift.enough",
    "callbacks=drift callbacks.drift.enough=-1": "callbacks.drift.enough=-1",
    "callbacks=drift callbacks.drift._target_=mine.Drfit": "mine.Drift",
    "callbacks={x:{_target_:mine.Leaky}}": "callbacks",
    "callbacks=none +callbacks.x._target_=mine.Leaky": "callbacks.x._target_='mine.Leaky'",
    "callbacks=5": "callbacks",
    "callbacks=drfit": "drift",
    "callbacks=early_stopping callbacks.early_stopping.monitor=cost/test": "cost/validation",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_wrong_is_one_line(words: str, cwd: Path) -> None:
    ran = train(*OWN, *QUICK, *words.split(), cwd=cwd)
    assert ran.code == 2
    assert WRONG[words] in ran.error


def test_first_weights_and_nothing_else_come_from_another_run(tmp_path: Path) -> None:
    train(*QUICK, "trainer.epochs=2", "hydra.run.dir=a", cwd=tmp_path).succeeded()
    other = ("model=hopfield", "estimator=ep_centered", "dataset.batch_size=50", *STILL)
    words = (*QUICK, *other, "hydra.run.dir=b")
    ran = train(*words, "init_from=a", cwd=tmp_path).succeeded()
    assert "weights    those of a" in ran.out
    source = model_of(tmp_path / "a")
    for name, weight in model_of(tmp_path / "b").items():
        assert torch.equal(weight, source[name])
    assert status(tmp_path / "b")["best"]["epoch"] == 1
    assert rows(tmp_path / "b")[-1]["step"] == math.ceil(1298 / 50)
    recorded = yaml.safe_load((tmp_path / "b" / ".hydra" / "config.yaml").read_text())
    origin = {"checkpoint": str(tmp_path / "a" / "checkpoints" / "last.pt"), "run_id": "a"}
    assert recorded["init_from"] == "a"
    assert recorded["chosen"]["init_from"] == {**origin, "step": 26}
    best = "init_from=a/checkpoints/best.pt"
    train("rerun=b", best, "hydra.run.dir=c", cwd=tmp_path).succeeded()
    assert same(model_of(tmp_path / "c"), model_of(tmp_path / "a", "best"))
    misfit = train(*QUICK, "model.hidden=[8]", "init_from=a", cwd=tmp_path)
    assert misfit.code == 2
    for word in ("init_from", "W.0.weight", "(16, 64)", "(8, 64)", "W.1.weight"):
        assert word in misfit.error
    shutil.rmtree(tmp_path / "a")
    train("resume=b", "trainer.epochs=2", cwd=tmp_path).succeeded()
    assert same(model_of(tmp_path / "b"), source)
    again = yaml.safe_load((tmp_path / "b" / ".hydra" / "config.yaml").read_text())
    assert again["chosen"]["init_from"] == {**origin, "step": 26}
    gone = train("rerun=b", "hydra.run.dir=d", cwd=tmp_path)
    assert (gone.code, "init_from='a'" in gone.error) == (2, True)
    assert not (tmp_path / "d").exists()


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_run_killed_before_its_first_save_begins_from_the_same_weights(tmp_path: Path) -> None:
    train(*QUICK, "hydra.run.dir=a", cwd=tmp_path).succeeded()
    words = (*QUICK, "init_from=a", "optimizer.lr=1e-2")
    train(*words, "hydra.run.dir=alone", cwd=tmp_path).succeeded()
    assert killed(3, *words, "hydra.run.dir=b", cwd=tmp_path).code == -signal.SIGKILL
    train("resume=b", cwd=tmp_path).succeeded()
    assert same(model_of(tmp_path / "b"), model_of(tmp_path / "alone"))
