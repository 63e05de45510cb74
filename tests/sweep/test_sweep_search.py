"""Searches by Optuna: what is proposed, told, pruned, and where they end."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from optuna.trial import TrialState
from searching import FakeLauncher, planned, run, runs, smooth, trials

TPE = ("sweep=tpe", "dynamics.n_relax=4")


def test_n_trials_are_completed_within_the_space(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher = FakeLauncher()
    assert run(planned(tmp_path, *TPE, "sweep.n_trials=15"), launcher) == 0
    points = [(float(g["optimizer.lr"]), float(g["estimator.beta"])) for g in launcher.given]
    assert len(set(points)) == len(points) == 15
    assert all(1e-4 <= lr <= 1e-2 and 0.1 <= beta <= 3.0 for lr, beta in points)
    assert {g["dynamics.n_relax"] for g in launcher.given} == {"4"}
    assert {trial.state for trial in trials(tmp_path)} == {TrialState.COMPLETE}
    assert [trial.value for trial in trials(tmp_path)] == [smooth(g) for g in launcher.given]
    best = max(map(smooth, launcher.given))
    assert f"best {best:.4f}: optimizer.lr=" in capsys.readouterr().out


def test_it_learns(tmp_path: Path) -> None:
    """Points after the start-up are better than those drawn by chance."""
    launcher = FakeLauncher()
    run(planned(tmp_path, *TPE, "sweep.n_trials=30"), launcher)
    found = [smooth(given) for given in launcher.given]
    assert statistics.fmean(found[15:]) > statistics.fmean(found[:10])


def test_going_on_gives_the_points_of_one_go(tmp_path: Path) -> None:
    whole, parts = FakeLauncher(), FakeLauncher()
    run(planned(tmp_path / "whole", *TPE, "sweep.n_trials=14"), whole)
    for n in (3, 11, 11, 14):
        run(planned(tmp_path / "parts", *TPE, f"sweep.n_trials={n}"), parts)
    swept = ("optimizer.lr", "estimator.beta")
    assert [[g[k] for k in swept] for g in parts.given] == [
        [g[k] for k in swept] for g in whole.given
    ]
    assert len({job.folder for job in parts.started}) == 14
    other = FakeLauncher()
    run(planned(tmp_path / "other", *TPE, "sweep.n_trials=3", "sweep.seed=1"), other)
    assert other.given[0]["optimizer.lr"] != whole.given[0]["optimizer.lr"]


def test_failures_are_told_and_more_points_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fussy(given: dict[str, str]) -> float | str:
        return smooth(given) if float(given["optimizer.lr"]) < 3e-3 else "step 7: diverged"

    launcher = FakeLauncher(fussy)
    assert run(planned(tmp_path, *TPE, "sweep.n_trials=8"), launcher) == 1
    states = [trial.state for trial in trials(tmp_path)]
    assert states.count(TrialState.COMPLETE) == 8
    failed = [trial for trial in trials(tmp_path) if trial.state == TrialState.FAIL]
    assert failed
    assert {trial.user_attrs["reason"] for trial in failed} == {"step 7: diverged"}
    lines = capsys.readouterr().out.splitlines()
    assert sum(") failed: step 7: diverged; " in line for line in lines) == len(failed)


def test_a_search_in_which_all_fails_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = planned(tmp_path, *TPE, "sweep.n_trials=50", "sweep.max_failures=4")
    launcher = FakeLauncher(lambda given: "no luck")
    for _ in range(2):  # the same command again starts nothing and ends the same way
        assert run(asked, launcher) == 1
        assert len(launcher.started) == 4
        assert "sweep.max_failures" in capsys.readouterr().out


def test_a_small_space_is_tried_once(tmp_path: Path) -> None:
    space = ("optimizer.lr=1e-3,3e-3", "estimator.beta=range(1,4)")
    launcher = FakeLauncher()
    assert run(planned(tmp_path, *TPE, *space, "sweep.n_trials=2"), launcher) == 0
    assert run(planned(tmp_path, *TPE, *space, "sweep.n_trials=20"), launcher) == 0
    cells = {(float(g["optimizer.lr"]), float(g["estimator.beta"])) for g in launcher.given}
    assert len(launcher.started) == 6
    assert cells == {(lr, beta) for lr in (0.001, 0.003) for beta in (1.0, 2.0, 3.0)}


def test_repeats_are_a_mean_with_its_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher = FakeLauncher(capacity=2)
    words = (*TPE, "sweep.n_trials=3", "sweep.repeats=3", "seed=5", "sweep.jobs=2")
    run(planned(tmp_path, *words), launcher)
    assert [g["seed"] for g in launcher.given] == ["5", "6", "7"] * 3
    assert launcher.most == 2
    for trial in trials(tmp_path):
        assert "seed" not in trial.params
        found = [smooth(g) for g in launcher.given[3 * trial.number : 3 * trial.number + 3]]
        assert trial.value == pytest.approx(statistics.fmean(found))
        error = statistics.stdev(found) / 3**0.5
        assert trial.user_attrs["standard_error"] == pytest.approx(error)
    assert "±" in capsys.readouterr().out


def test_a_point_whose_run_failed_needs_no_more_repeats(tmp_path: Path) -> None:
    words = (*TPE, "sweep.n_trials=1", "sweep.max_failures=2", "sweep.repeats=3")
    launcher = FakeLauncher(lambda given: "no luck")
    run(planned(tmp_path, *words), launcher)
    assert len(launcher.started) == 2
    assert [one["state"] for one in runs(tmp_path)] == ["failed", "skipped", "skipped"] * 2


def test_hopeless_points_are_pruned_after_their_first_run(tmp_path: Path) -> None:
    """The epochs' accuracies rise to the objective; the worse half of the points is stopped."""
    words = (*TPE, "sweep.n_trials=10", "sweep.pruner=median", "sweep.repeats=2")
    launcher = FakeLauncher(curve=[0.2, 0.4, 0.6, 0.8, 1.0])
    assert run(planned(tmp_path, *words), launcher) == 0
    found = trials(tmp_path)
    pruned = [trial for trial in found if trial.state == TrialState.PRUNED]
    done = [trial for trial in found if trial.state == TrialState.COMPLETE]
    assert len(done) == 10
    assert pruned
    for trial in pruned:  # the median of the others before it, by its own rule
        epoch = max(trial.intermediate_values)
        before = [t for t in done if t.number < trial.number]
        best = [max(t.intermediate_values[e] for e in range(1, epoch + 1)) for t in before]
        assert max(trial.intermediate_values.values()) <= statistics.median(best)
        first, second = trial.user_attrs["runs"]
        assert (first["state"], second["state"]) == ("pruned", "skipped")
        recorded = json.loads((tmp_path / first["folder"] / "status.json").read_text())
        assert (recorded["state"], recorded["reason"]) == ("pruned", first["reason"])
