"""scripts/benchmarks/compare_solvers.py at the smallest sizes. No timing is judged."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import _solver_report
import compare_solvers
import pytest
import torch
from _relaxing import Batch, Curve, batch_of, curve_of, solvers_of
from pairs import make_model, one_hot
from scripting import in_process, is_png, needs_matplotlib, run

from eqprop.relaxation import Euler

Row = dict[str, Any]
STUDY = (
    *("--dataset", "digits", "--hidden", 8, "--epochs", 1, "--dtype", "float64"),
    *("--batch", 50, "--batches", 2, "--rounds", 1, "--budget", 0.001, "--steps", 90),
    *("--levels", 1e-1, 1e-3, 1e-2),
)
SIGMOID, PIECEWISE = {"euler", "euler adaptive", "newton", "anderson"}, {"newton", "exact"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Row:
    path = tmp_path_factory.mktemp("solvers") / "made" / "report.json"
    out = in_process(compare_solvers, *STUDY, "--json", path)
    assert "hopfield, trained" in out
    assert "gaussian: with sigmoid use" in out
    found: Row = json.loads(path.read_text())
    return found


def test_every_solver_on_every_network_in_both_phases(report: Row) -> None:
    seen: dict[tuple[str, str, str, str], set[str]] = {}
    for row in report["rows"]:
        network = row["network"]
        key = (network["energy"], network["activation"], network["state"], row["phase"])
        seen.setdefault(key, set()).add(row["solver"])
    kinds = [("gaussian", "sigmoid"), ("hopfield", "sigmoid"), ("hopfield", "hard_sigmoid")]
    assert seen == {
        (*kind, state, phase): PIECEWISE if kind[1] == "hard_sigmoid" else SIGMOID
        for kind in kinds
        for state in ("fresh", "trained")
        for phase in ("free", "nudged")
    }


def test_a_row_holds_steps_times_and_curve(report: Row) -> None:
    for row in report["rows"]:
        assert row["network"]["sizes"] == [64, 8, 10]
        assert row["residual"][0] == 1.0
        assert row["seconds"][0] == 0.0
        assert len(row["residual"]) == len(row["seconds"])
        assert all(a < b for a, b in pairwise(row["seconds"]))
        assert [entry["level"] for entry in row["levels"]] == [1e-1, 1e-2, 1e-3]
        for entry in row["levels"]:
            if entry["steps"]:
                assert 0 < entry["q1_s"] <= entry["median_s"] <= entry["q3_s"] < math.inf


def test_newton_and_exact_settle_and_never_raise_the_energy(report: Row) -> None:
    for row in report["rows"]:
        smooth = row["network"]["activation"] == "sigmoid"
        if row["solver"] == "exact" or (row["solver"] == "newton" and smooth):
            assert row["energy_rises"] == 0
            assert row["levels"][-1]["steps"] is not None
            assert row["last_residual"] < 1e-3 * row["first_residual"]
            assert all(residual < 1.0 for residual in row["residual"][1:])


def test_the_report_tells_of_its_making(report: Row) -> None:
    assert report["machine"]["versions"]["torch"]
    assert report["settings"]["hidden"] == [8]
    assert report["advice"].keys() == {"gaussian", "hopfield"}
    trained = [row["network"] for row in report["rows"] if row["network"]["state"] == "trained"]
    assert all(0.0 < network["accuracy"] <= 1.0 for network in trained)


@needs_matplotlib
def test_the_figure(report: Row, tmp_path: Path) -> None:
    _solver_report.plot(report["rows"], str(tmp_path / "docs" / "solvers.png"))
    assert is_png(tmp_path / "docs" / "solvers.png")


def test_a_run_s_network(tmp_path: Path) -> None:
    train = "tracking=none", "model=hopfield", "model.hidden=[8]", "trainer.epochs=1"
    run("train.py", *train, "dataset=digits", f"hydra.run.dir={tmp_path}/run")
    small = "--batches", 1, "--rounds", 1, "--budget", 0.001, "--steps", 9, "--levels", 0.5
    out = in_process(compare_solvers, "--run", tmp_path / "run", *small)
    assert "hopfield, fresh: sigmoid, mse, 64-8-10" in out
    assert "hopfield, trained" in out


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    assert "no checkpoint" in run("benchmarks/compare_solvers.py", "--run", tmp_path, status=2)


@pytest.mark.parametrize("value", ["2", "0", "x", "nan"])
def test_a_level_is_a_share(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare_solvers.arguments(["--levels", value])
    assert "is not a number between 0 and 1" in capsys.readouterr().err


# ---------------------------------------------------------------------- the parts


def made(kind: str, phi: str, cost: str) -> tuple[Any, Batch]:
    """A small network with its cost, as a session has them, and a batch."""
    model = make_model(kind, [5, 7, 3], 4, phi, cost)
    session: Any = SimpleNamespace(network=model, cost=model.c_energy)
    return session, batch_of(session, torch.randn(4, 5).double(), one_hot(4, 3), "normal", 1)


@pytest.mark.parametrize("phase", ["free", "nudged"])
@pytest.mark.parametrize(
    ("kind", "phi", "cost"),
    [("gaussian", "tanh", "cross_entropy"), ("hopfield", "hard_sigmoid", "squared_error")],
)
def test_measuring_changes_no_step(kind: str, phi: str, cost: str, phase: str) -> None:
    session, batch = made(kind, phi, cost)
    network, state = session.network, batch.state
    nudge, start = batch.starts[phase]
    for solver in solvers_of(session).values():
        with batch.held(network):
            curve_of(network, solver, batch, phase, 4, 0.0)
            measured = state.copy().u
            state.restore(start)
            solver.relax(network, state, nudge, 4)
        for layer, other in zip(state.u, measured, strict=True):
            torch.testing.assert_close(layer, other)


def test_which_solvers_a_network_allows() -> None:
    assert "exact" in solvers_of(made("hopfield", "hard_sigmoid", "squared_error")[0])
    assert "exact" not in solvers_of(made("hopfield", "hard_sigmoid", "cross_entropy")[0])
    assert "exact" not in solvers_of(made("hopfield", "tanh", "squared_error")[0])


def test_a_minimum_at_a_kink_has_no_residual() -> None:
    session, batch = made("hopfield", "hard_sigmoid", "squared_error")
    network, exact = session.network, solvers_of(session)["exact"]
    with batch.held(network):
        curve = curve_of(network, exact, batch, "free", 100, 1e-9)
    hidden = batch.state.u[1]
    assert bool((hidden == 0).any() or (hidden == 1).any())
    assert curve.residuals[-1] < 1e-4


def test_a_rising_energy_is_seen() -> None:
    session, batch = made("gaussian", "tanh", "squared_error")
    with batch.held(session.network):
        curve = curve_of(session.network, Euler(2.0), batch, "free", 3, 0.0)
    assert curve.rises == 3
    assert curve.highest > 0.0


def test_steps_to_a_level() -> None:
    curve = Curve([2.0, 1.0, 0.15, 0.2], 0, 0.0)
    assert [curve.steps_to(level) for level in (0.5, 0.1, 0.01)] == [1, 2, math.inf]


def test_advice_takes_the_fastest_that_never_raised_the_energy() -> None:
    network = SimpleNamespace(energy="hopfield", state="fresh", activation="tanh", feedforward=0)

    def row(solver: str, seconds: float, rises: int = 0) -> Row:
        entry = {"level": 1e-2, "steps": 3, "median_s": seconds}
        return {"network": vars(network), "phase": "free", "solver": solver,
                "energy_rises": rises, "levels": [entry]}  # fmt: skip

    rows = [row("rash", 0.001, rises=1), row("slow", 0.1), row("good", 0.02)]
    sentence = _solver_report.advice("hopfield", rows)
    assert sentence.startswith("hopfield: with tanh use good [fresh free: 20 ms good, 100 ms slow]")
