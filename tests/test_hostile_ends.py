"""Ends that nobody plans: what a command means that leaves a run nothing, or nothing to begin."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from running import QUICK, rows, status, train
from test_training import recorded, training

import eqprop
from eqprop.cli.command import prepared
from eqprop.cli.console import show_result
from eqprop.data import Split
from eqprop.relaxation import Anderson, Euler
from eqprop.run.errors import ConfigError
from eqprop.tracking import Trackers
from eqprop.training.loop import Position


@pytest.mark.parametrize("batches", [0, 1])
def test_a_run_that_is_told_to_end_before_it_stands_is_evaluated(batches: int) -> None:
    """Resumed after epoch 3, none of which was evaluated, with trainer.epochs=2."""
    run = training(eval_every=9)
    run.at = Position(4, batches)
    run.step = 9 + batches
    (row,) = recorded(run)
    test = run.evaluate(run.data.test)
    assert (row["accuracy/test"], row["energy/test"]) == test
    assert (row["step"], row["epoch"]) == (9 + batches, 3 + batches)
    assert isinstance(run.data.validation, Split)
    assert run.objective == run.evaluate(run.data.validation)[0]


def test_such_a_run_ends_well(tmp_path: Path) -> None:
    script = tmp_path / "stop.py"
    script.write_text(
        "import os, signal\n"
        "from eqprop.training.loop import Training\n"
        "update = Training.update\n"
        "def stopping(self, *args):\n"
        "    if self.step == 30:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return update(self, *args)\n"
        "Training.update = stopping\n"
        "from eqprop.cli.main import run\n"
        "run()\n"
    )
    words = (*QUICK, "trainer.epochs=9", "trainer.eval_every=9", "hydra.run.dir=a")
    assert train(*words, cwd=tmp_path, script=script).code == 143
    ran = train("resume=a", "trainer.epochs=2", cwd=tmp_path).succeeded()
    assert "accuracy" in ran.out
    found = rows(tmp_path / "a")[-1]
    assert found["accuracy/validation"] == status(tmp_path / "a")["objective"]
    assert "is done already" in train("resume=a", "trainer.epochs=2", cwd=tmp_path).succeeded().out


@pytest.mark.parametrize("key", ["resume", "rerun"])
@pytest.mark.parametrize("value", ["", "''"])
def test_an_empty_name_is_no_run(
    key: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"^{key}='': must be null or a run's folder$"):
        prepared([f"{key}={value}"])


def test_only_resume_has_auto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^rerun='auto': there is no folder auto$"):
        prepared(["rerun=auto"])


MINE = """
from eqprop.data import Digits
from eqprop.relaxation import Solver


class Steps(Solver):
    def step(self, model, work, measure):
        model.total_gradient(work)
"""


def test_a_solver_of_one_s_own_is_told_what_auto_left_open(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    ran = train(*QUICK, "dynamics._target_=mine.Steps", cwd=tmp_path)
    assert ran.code == 2
    assert ran.error == "error: dynamics.n_relax=null: Steps needs a whole number >= 1"


def test_a_mistake_that_a_class_of_one_s_own_finds_is_told_in_its_words(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE + "\n\nclass Mine(Digits):\n    pass\n")
    words = ("dataset._target_=mine.Mine", "dataset.validation=2")
    ran = train(*QUICK, *words, cwd=tmp_path)
    assert ran.code == 2
    assert ran.error == "error: dataset.validation=2: must be at least 0 and less than 1"


def test_anderson_relaxes_in_bfloat16() -> None:
    """Its equations cannot be solved in that precision; what they are for can be done in it."""
    phi = ["identity", "tanh", "tanh"]
    residuals = []
    for solver in (Anderson(n_relax=10, init="zeros"), Euler(dt=0.2, n_relax=10, init="zeros")):
        torch.manual_seed(0)
        model = eqprop.RestrictedHopfield([4, 6, 3], eqprop.SquaredError(1.0), 5, phi).bfloat16()
        model.clamp_layer(0, torch.randn(5, 4).bfloat16())
        found = solver.free_phase(model, measure=True)
        assert found.residual is not None
        residuals.append(found.residual)
    assert residuals[0] < residuals[1]  # Euler is its worst case


@pytest.mark.parametrize("columns", ["1", "20"])
def test_a_narrow_terminal_loses_no_result(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    name = "accuracy/validation"
    show_result({f"best/{name}": 1.0, f"last/{name}": 0.9876}, Path("there"), Trackers([]))
    out = capsys.readouterr().out
    assert all(word in out for word in ("validation", "100.00 %", "98.76 %"))
