"""Grids: which cells are run, and what another command makes of what is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from searching import FakeLauncher, planned, record, run, runs, smooth, trials

from eqprop.run.errors import ConfigError

LR = "optimizer.lr=1e-3,3e-3"


def cells(launcher: FakeLauncher, *keys: str) -> list[tuple[float, ...]]:
    return [tuple(float(given[key]) for key in keys) for given in launcher.given]


def test_every_cell_once_in_order(tmp_path: Path) -> None:
    launcher = FakeLauncher()
    asked = planned(tmp_path, LR, "estimator.beta=range(1,4)", "optimizer.weight_decay=0,0")
    assert run(asked, launcher) == 0
    expected = [(lr, beta) for lr in (1e-3, 3e-3) for beta in (1, 2, 3)]
    assert cells(launcher, "optimizer.lr", "estimator.beta") == expected
    assert [job.number for job in launcher.started] == list(range(6))
    assert [job.folder.parent for job in launcher.started] == [tmp_path] * 6
    best = max(trials(tmp_path), key=lambda trial: trial.value or 0)
    assert best.params == {
        "optimizer.lr": 0.003,
        "estimator.beta": 1,
        "optimizer.weight_decay": 0,
    }
    again = FakeLauncher()
    assert (run(asked, again), again.started) == (0, [])


def test_a_grid_may_get_values_and_they_may_be_written_otherwise(tmp_path: Path) -> None:
    run(planned(tmp_path, LR), FakeLauncher())
    launcher = FakeLauncher()
    run(planned(tmp_path, "optimizer.lr=1e-2,3e-3,0.001"), launcher)
    assert cells(launcher, "optimizer.lr") == [(0.01,)]
    assert launcher.started[0].number == 2


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([LR, "estimator.beta=1,2"], "estimator.beta (null → 'varied')"),
        ([LR, "trainer.epochs=7"], "trainer.epochs (null → '7')"),
        ([LR, "sweep.repeats=2"], "sweep.repeats (1 → 2)"),
        ([LR, "model=hopfield"], "model (null → 'hopfield')"),
    ],
)
def test_another_sweep_is_refused(words: list[str], named: str, tmp_path: Path) -> None:
    run(planned(tmp_path, LR), FakeLauncher())
    launcher = FakeLauncher()
    with pytest.raises(ConfigError) as refused:
        run(planned(tmp_path, *words), launcher)
    assert named in str(refused.value)
    assert "hydra.sweep.dir" in str(refused.value)
    assert launcher.started == []


def test_how_it_runs_may_change(tmp_path: Path) -> None:
    run(planned(tmp_path, LR, "sweep.n_trials=1"), FakeLauncher())
    words = ["sweep.jobs=2", "sweep.job_timeout=9", "tracking.project=x", "paths.data=d"]
    launcher = FakeLauncher()
    run(planned(tmp_path, LR, *words, "device.threads=2"), launcher)
    assert cells(launcher, "optimizer.lr") == [(0.003,)]


def test_failed_cells_stay_failed_until_they_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fussy(given: dict[str, str]) -> float | str:
        return "no data" if float(given["optimizer.lr"]) == 1e-3 else smooth(given)

    first = FakeLauncher(fussy)
    assert run(planned(tmp_path, LR), first) == 1
    again = FakeLauncher()
    capsys.readouterr()
    assert (run(planned(tmp_path, LR), again), again.started) == (1, [])
    assert "no data" in capsys.readouterr().out
    assert run(planned(tmp_path, LR, "sweep.retry=true"), again) == 0
    assert [job.folder for job in again.started] == [first.started[0].folder]


def test_all_repeats_of_a_cell_are_run(tmp_path: Path) -> None:
    """One that fails makes the cell failed: the mean of the others would flatter it."""

    def fussy(given: dict[str, str]) -> float | str:
        return "diverged" if given["seed"] == "8" else smooth(given)

    launcher = FakeLauncher(fussy)
    run(planned(tmp_path, LR, "seed=7", "sweep.repeats=3"), launcher)
    assert [given["seed"] for given in launcher.given] == ["7", "8", "9"] * 2
    for trial in trials(tmp_path):
        assert (trial.state.name, trial.value) == ("FAIL", None)
        assert trial.user_attrs["reason"] == "with seed 8: diverged"
    assert [one["state"] for one in runs(tmp_path)] == ["done", "failed", "done"] * 2


def test_jobs_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.sweep\.subdir"):
        run(planned(tmp_path, LR, "hydra.sweep.subdir=same"), FakeLauncher())


def test_a_folder_that_holds_another_run_is_left_alone(tmp_path: Path) -> None:
    record(tmp_path / "1-mine", state="done")
    launcher = FakeLauncher()
    with pytest.raises(ConfigError, match=f"{tmp_path / '1-mine'} belongs to another run"):
        run(planned(tmp_path, LR, "hydra.sweep.subdir=${hydra.job.num}-mine"), launcher)
    assert "1-mine" not in [job.folder.name for job in launcher.started]


def test_a_folder_by_the_overrides(tmp_path: Path) -> None:
    launcher = FakeLauncher()
    run(planned(tmp_path, LR, "hydra.sweep.subdir=${hydra.job.override_dirname}"), launcher)
    names = [job.folder.name.partition(",")[0] for job in launcher.started]
    assert names == ["optimizer.lr=0.001", "optimizer.lr=0.003"]
