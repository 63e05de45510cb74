"""The benchmarks of steps and epochs, run at the smallest sizes. No timing is judged."""

from __future__ import annotations

import itertools
import json
import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import _timing
import benchmark
import benchmark_epoch
import benchmark_survival
import pytest
from _cases import Place, Point
from _child import in_child
from _sections import Bench
from _step_report import plot
from _timing import Case, interleave, quartiles
from scripting import in_process, is_png, needs_matplotlib, run

from eqprop.run.errors import UserError


def positive(spread: dict[str, float], suffix: str = "") -> bool:
    q1, median, q3 = (spread[f"{name}{suffix}"] for name in ("q1", "median", "q3"))
    return 0 < q1 <= median <= q3 < math.inf


# ---------------------------------------------------------------------- benchmark.py


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("benchmark") / "made" / "report.json"
    sizes = ("--batch", 4, "--width", 8, "--depth", 1, "--steps", 3, "--samples", 10)
    choice = (
        "--cases",
        "euler",
        "autograd",
        "script",
        "--sections",
        "step",
        "evaluation",
        "startup",
    )
    how = ("--quick", "--rounds", 1, "--dtype", "float64", "--threads", 1, "--json", path)
    out = in_process(benchmark, *sizes, *choice, *how)
    assert "backprop" in out
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_benchmark_tells_of_the_machine(report: dict[str, Any]) -> None:
    assert report["machine"]["versions"]["torch"]
    assert report["machine"]["hardware"]["cores_logical"] >= 1
    assert report["machine"]["threads"] == 1
    assert report["settings"]["dtype"] == "float64"


def test_every_point_has_every_kind_of_row(report: dict[str, Any]) -> None:
    points = [{"batch": b, "width": 8, "depth": 1, "steps": s}
              for b, s in ((4, None), (4, 3))]  # fmt: skip
    assert report["points"] == points
    for point in points:
        rows = [row for row in report["step"] if row["point"] == point]
        assert {row["kind"] for row in rows} == {"backprop", "ep", "autograd", "floor"}
        assert {"gaussian euler", "hopfield euler"} <= {row["case"] for row in rows}
        assert all(positive(row, "_s") and positive(row["vs_backprop"]) for row in rows)
        for row in rows:
            assert (row["kind"] != "ep") or positive(row["vs_floor"])
    ours = {row["case"]: row for row in report["step"] if row["point"]["steps"] == 3}
    assert ours["gaussian euler"]["relaxation_steps"] == 3
    assert ours["hopfield euler"]["relaxation_steps"] == 6
    assert positive(ours["hopfield euler"]["autograd_over_this"])
    assert positive(ours["gaussian euler"]["script_over_this"])


def test_the_autograd_paths_compute_the_closed_form(report: dict[str, Any]) -> None:
    checks = {check["case"]: check["relative_difference"] for check in report["checks"]}
    paths = itertools.product(("gaussian", "hopfield"), ("autograd", "script"))
    assert checks.keys() == {" ".join(path) for path in paths}
    assert all(difference < 1e-10 for difference in checks.values())


def test_evaluation_is_measured(report: dict[str, Any]) -> None:
    speeds = {row["case"]: row["samples_per_s"] for row in report["evaluation"]}
    assert {"backprop", "gaussian euler", "hopfield euler"} <= speeds.keys()
    assert all(0 < speed < math.inf for speed in speeds.values())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a peak cannot be started afresh")
def test_memory_does_not_grow_with_the_steps() -> None:
    """Measured, as the first steps are, in a process for each case."""
    place = Place(threads=1, dtype="float64")  # in which no loop is loaded
    points = (Point(50, 500, 1, steps) for steps in (2, 100))
    few, many = (in_child("hopfield euler", point, place) for point in points)
    assert all(few[name] > 0 for name in ("assemble_s", "first_step_s", "later_step_s"))
    state = 50 * (784 + 500 + 10) * 8  # bytes: if each step kept one, 196 of them would show
    assert abs(many["added_bytes"] - few["added_bytes"]) < 40 * state


def test_start_up_is_measured(report: dict[str, Any]) -> None:
    rows = {row["command"]: row for row in report["startup"]}
    assert {"import torch", "train.py --help", "train.py optimizer.lr=abc"} <= rows.keys()
    assert all(positive(row, "_s") for row in rows.values())


@needs_matplotlib
@pytest.mark.parametrize("varies", [True, False])
def test_the_benchmark_s_figure(report: dict[str, Any], varies: bool, tmp_path: Path) -> None:
    base = report["points"][0]
    plot([row for row in report["step"] if varies or row["point"] == base], f"{tmp_path}/b.png")
    assert is_png(tmp_path / "b.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "0"], "whole number >= 1"),
        (["--plot", "x.png", "--sections", "memory"], "add it to --sections"),
    ],
)
def test_a_wrong_benchmark_is_one_line(arguments: list[str], message: str) -> None:
    assert message in run("benchmarks/benchmark.py", *arguments, status=2).splitlines()[-1]


def test_a_case_that_there_is_not() -> None:
    with pytest.raises(UserError, match="no case has that"):
        Bench(benchmark.arguments(["--quick", "--cases", "nonsense"]), [])


# ---------------------------------------------------------------------- _timing.py


def test_cases_take_turns() -> None:
    calls: list[str] = []
    cases = [Case(name, lambda name=name: calls.append(name)) for name in "abc"]
    timings = interleave(cases, rounds=4, warm=False)
    assert "".join(calls) == "abcbcacababc"
    assert all(timing.seconds.keys() == {0, 1, 2, 3} for timing in timings)
    assert positive(timings[0].over(timings[1]))


@pytest.mark.parametrize(("turns", "rounds"), [(1, 1), (3, 3), (3, 15), (7, 15), (15, 15)])
def test_a_slow_case_sits_out_evenly(turns: int, rounds: int) -> None:
    due = [i for i in range(rounds) if _timing.due(i, turns, rounds)]
    gaps = {b - a for a, b in pairwise(due)}
    assert (len(due), due[0], due[-1]) == (turns, 0, rounds - 1)
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_quartiles() -> None:
    assert quartiles([5.0]) == {"median": 5.0, "q1": 5.0, "q3": 5.0}
    assert quartiles([4, 1, 3, 2, 5]) == {"median": 3, "q1": 2, "q3": 4}


# ---------------------------------------------------------------------- benchmark_epoch.py


def test_epochs_side_by_side(tmp_path: Path) -> None:
    small = ("dataset=digits", "model.hidden=[8]", "dynamics.n_relax=2", "trainer.log_every=2")
    path, how = tmp_path / "epochs.json", ("--epochs", 2, "--limit", 50, "--threads", 1)
    experiments = ("gaussian_mnist", "hopfield_mnist")
    in_process(benchmark_epoch, *experiments, *how, "--override", *small, "--json", path)
    results = json.loads(path.read_text())["results"]
    assert tuple(result["experiment"] for result in results) == experiments
    for result in results:
        assert result["epochs"] == 2
        for part in ("train_s", "eval_s"):
            assert all(positive(result[part][who]) for who in ("eqprop", "backprop", "ratio"))
        assert all(0 <= accuracy <= 1 for accuracy in result["accuracy"].values())


def test_an_unknown_experiment_is_one_line() -> None:
    assert "experiment=nonsense" in run("benchmarks/benchmark_epoch.py", "nonsense", status=2)


# ---------------------------------------------------------------------- benchmark_survival.py


def test_what_surviving_costs(tmp_path: Path) -> None:
    small = ("dataset=digits", "model.hidden=[8]", "dynamics.n_relax=2", "trainer.log_every=2")
    path, how = tmp_path / "survival.json", ("--epochs", 2, "--limit", 50)
    experiments = ("gaussian_mnist", "hopfield_mnist")
    in_process(benchmark_survival, *experiments, *how, "--override", *small, "--json", path)
    results = json.loads(path.read_text())["results"]
    assert tuple(result["experiment"] for result in results) == experiments
    for result in results:
        assert all(positive(result[which]) for which in ("with", "without", "ratio"))
        assert result["epochs"] == 2
