"""Ends that nobody plans: what a command means that leaves a run nothing, or nothing to begin."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from interrupted import killed
from running import QUICK, rows, status, train
from toys import recorded, training

import eqprop
from eqprop.cli.command import prepared
from eqprop.cli.console import show_result
from eqprop.relaxation import Anderson, Euler
from eqprop.run.errors import ConfigError
from eqprop.tracking import Trackers
from eqprop.training.session import Position, evaluate


@pytest.mark.parametrize("batches", [0, 1])
def test_a_run_that_is_told_to_end_before_it_stands_is_evaluated(batches: int) -> None:
    """Resumed after epoch 3, none of which was evaluated, with trainer.epochs=2."""
    run = training(eval_every=9)
    session = run.session
    session.at, session.step = Position(4, batches), 9 + batches
    (row,) = recorded(run)
    measured = tuple(row[f"{what}/test"] for what in ("accuracy", "energy", "cost"))
    assert measured == evaluate(session, session.data.test)
    assert (row["step"], row["epoch"]) == (9 + batches, 3 + batches)
    assert session.data.validation is not None
    assert session.best[session.objective_name] == evaluate(session, session.data.validation)[0]


def test_such_a_run_ends_well(tmp_path: Path) -> None:
    words = (*QUICK, "trainer.epochs=9", "trainer.eval_every=9", "hydra.run.dir=a")
    assert killed(30, *words, cwd=tmp_path, name="TERM").code == 143
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
    with pytest.raises(ConfigError, match=rf"^{key}='': must be a run's folder"):
        prepared([f"{key}={value}"])


def test_only_resume_has_auto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^rerun='auto': there is no folder auto$"):
        prepared(["rerun=auto"])


MINE = """
from eqprop.data import Digits
from eqprop.relaxation import Solver


class Steps(Solver):
    def step(self, network, state, nudge):
        network.gradient(state, nudge)
"""


def test_a_solver_of_one_s_own_needs_not_what_auto_left_open(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    words = (*QUICK, "dynamics._target_=mine.Steps")
    ran = train(*words, cwd=tmp_path)
    assert ran.code == 2
    assert "dynamics.n_relax=null" in ran.error  # which the class takes, and not as null
    ran = train(*words, "dynamics.n_relax=5", cwd=tmp_path).succeeded()
    assert "dynamics.dt=null" in ran.out  # which it does not take
    assert "mine.Steps" in ran.out


def test_a_mistake_in_a_class_of_one_s_own_is_told_as_in_ours(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE + "\n\nclass Mine(Digits):\n    pass\n")
    words = ("dataset._target_=mine.Mine", "dataset.validation=2")
    ran = train(*QUICK, *words, cwd=tmp_path)
    assert ran.code == 2
    assert ran.error.startswith("error: dataset.validation=2: must be")


def test_anderson_relaxes_in_bfloat16() -> None:
    """Its equations cannot be solved in that precision; what they are for can be done in it."""
    phi = ["identity", "tanh", "tanh"]
    residuals = []
    x = torch.randn(5, 4).bfloat16()
    for solver in (Anderson(n_relax=10, init="zeros"), Euler(dt=0.2, n_relax=10, init="zeros")):
        torch.manual_seed(0)
        model = eqprop.RestrictedHopfield([4, 6, 3], eqprop.SquaredError(), 5, phi).bfloat16()
        state = model.new_state(5)
        state.clamp(0, x)
        found = solver.free_phase(model, state, measure=True)
        assert found.residual is not None
        residuals.append(found.residual)
    assert residuals[0] < residuals[1]  # Euler is its worst case


@pytest.mark.parametrize("columns", ["1", "20"])
def test_a_narrow_terminal_loses_no_result(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    name = "accuracy/validation"
    show_result({f"best/{name}": 1.0, f"last/{name}": 0.9876}, Path("there"), Trackers([]), name)
    out = capsys.readouterr().out
    assert all(word in out for word in ("validation", "100.00 %", "98.76 %"))
