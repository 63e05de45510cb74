"""A sweeper that is killed, at every moment at which it writes, and run again."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from searching import FakeLauncher, planned, record, run, runs, smooth, trials

from eqprop.run.errors import ConfigError, RunError
from eqprop.run.lock import take_lock
from eqprop.sweep.plan import Plan

SEARCH = ("sweep=tpe", "dynamics.n_relax=4", "sweep.n_trials=2", "sweep.repeats=2")
GRID = ("optimizer.lr=1e-3,3e-3", "sweep.repeats=2")
SWEPT = ("optimizer.lr", "estimator.beta", "seed")


class Killed(BaseException):
    """What nobody catches."""


class Knife:
    """Kills at the n-th write to the disk: behind it, or in the middle of its line."""

    def __init__(self, moment: int, tears: bool, how: BaseException | None = None) -> None:
        self.how = how or Killed()
        self.moment = moment
        self.tears = tears
        self.writes = 0

    def __call__(self, descriptor: int) -> None:
        self.writes += 1
        if self.writes == self.moment:
            if self.tears:
                os.ftruncate(descriptor, max(0, os.fstat(descriptor).st_size - 7))
            raise self.how


def survived(asked: Plan, knife: Knife) -> FakeLauncher:
    """A sweep that is killed once and then run again; every job that was started."""
    launcher = FakeLauncher()
    with patch("os.fsync", knife):
        try:
            run(asked, launcher)
        except Killed:
            run(asked, launcher)
    return launcher


def points(launcher: FakeLauncher) -> list[tuple[str, ...]]:
    """What the jobs were, each once: one that was killed is started again in its folder."""
    found = {
        str(job.folder): given for job, given in zip(launcher.started, launcher.given, strict=True)
    }
    return [tuple(given.get(key, "") for key in SWEPT) for given in found.values()]


@pytest.mark.parametrize("words", [SEARCH, GRID], ids=["search", "grid"])
@pytest.mark.parametrize("tears", [False, True])
def test_killed_at_every_write(words: Any, tears: bool, tmp_path: Path) -> None:
    """Nothing is lost or doubled, whenever it happened; a grid's cells are the same, too."""
    counting, launcher = Knife(0, False), FakeLauncher()
    with patch("os.fsync", counting):
        run(planned(tmp_path / "whole", *words), launcher)
    expected = points(launcher)
    assert len(set(expected)) == 4
    asked = planned(tmp_path / "0", *words)
    for moment in range(1, counting.writes + 1):
        folder = tmp_path / f"{moment}"
        one = Plan(**{**vars(asked), "folder": folder})
        found = points(survived(one, Knife(moment, tears)))
        assert (found == expected) if words is GRID else (len(set(found)) == 4), moment
        assert [one["state"] for one in runs(folder)] == ["done"] * 4
        assert len({one["folder"] for one in runs(folder)}) == 4
        again = FakeLauncher()
        assert (run(one, again), again.started) == (0, [])
        assert [trial.state.name for trial in trials(folder)] == ["COMPLETE"] * 2, moment


def stopped_in_a_job(asked: Plan) -> FakeLauncher:
    """A sweeper that died while its second job ran."""

    def objective(given: dict[str, str]) -> float:
        if len(launcher.started) == 2:
            raise Killed
        return smooth(given)

    launcher = FakeLauncher(objective)
    with pytest.raises(Killed):
        run(asked, launcher)
    return launcher


def test_a_result_that_nobody_told_is_told_first(tmp_path: Path) -> None:
    """Its job ended after the sweeper had died."""
    asked = planned(tmp_path, "sweep=tpe", "sweep.n_trials=3")
    job = stopped_in_a_job(asked).started[1]
    record(job.folder, state="done", objective=0.123)
    launcher = FakeLauncher()
    run(asked, launcher)
    assert [trial.value for trial in trials(tmp_path)][1] == 0.123
    assert job.folder not in [other.folder for other in launcher.started]
    assert len(launcher.started) == 1


def test_a_failure_that_nobody_told_is_told(tmp_path: Path) -> None:
    asked = planned(tmp_path, "sweep=tpe", "sweep.n_trials=3")
    job = stopped_in_a_job(asked).started[1]
    record(job.folder, state="failed", reason="step 9: diverged", objective=None)
    assert run(asked, FakeLauncher()) == 1
    assert [trial.state.name for trial in trials(tmp_path)] == [
        *("COMPLETE", "FAIL", "COMPLETE", "COMPLETE")
    ]
    assert trials(tmp_path)[1].user_attrs["reason"] == "step 9: diverged"


def test_a_job_that_was_killed_with_it_goes_on_in_its_folder(tmp_path: Path) -> None:
    asked = planned(tmp_path, *GRID)
    job = stopped_in_a_job(asked).started[1]
    record(job.folder, state="running", objective=None, pid=2**22 + 1)
    launcher = FakeLauncher()
    run(asked, launcher)
    assert (launcher.started[0].folder, launcher.started[0].number) == (job.folder, job.number)
    assert launcher.started[0].command == job.command
    assert launcher.started[0].arguments()[-1] == "resume=auto"


def test_optunas_lock_of_a_killed_process_holds_nobody_up(tmp_path: Path) -> None:
    asked = planned(tmp_path, "sweep=tpe", "sweep.n_trials=1")
    run(asked, FakeLauncher())
    (tmp_path / "study.log.lock").symlink_to(tmp_path / "study.log")
    launcher = FakeLauncher()
    run(planned(tmp_path, "sweep=tpe", "sweep.n_trials=2"), launcher)
    assert len(launcher.started) == 1


def test_a_second_sweeper_is_refused(tmp_path: Path) -> None:
    asked = planned(tmp_path, *GRID)
    lock = take_lock(tmp_path)
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()} .*hydra.sweep.dir"):
        run(asked, FakeLauncher())
    lock.release()
    run(asked, FakeLauncher())


def test_a_record_that_is_none_is_one_line(tmp_path: Path) -> None:
    asked = planned(tmp_path, "sweep=tpe", "sweep.n_trials=1")
    run(asked, FakeLauncher())
    (tmp_path / "study.log").write_text("[1, 2\nnonsense\n")
    with pytest.raises(ConfigError, match=r"study\.log cannot be read"):
        run(asked, FakeLauncher())


@pytest.mark.parametrize(("words", "moment"), [(SEARCH, 14), (GRID, 12)], ids=["search", "grid"])
def test_a_disk_that_fills_ends_it_in_one_line_and_it_goes_on(
    words: Any, moment: int, tmp_path: Path
) -> None:
    """Whatever it could not write, the results that it had are there, and exit status 1."""
    asked = planned(tmp_path, *words)
    launcher = FakeLauncher()
    full = Knife(moment, True, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    argv = patch("sys.argv", ["train.py", "-m"])
    with argv, patch("os.fsync", full), pytest.raises(RunError) as stopped:
        run(asked, launcher)
    line = str(stopped.value)
    assert line.startswith(f"cannot write the sweep's record in {tmp_path}: No space left on dev")
    assert f"go on with: python train.py -m hydra.sweep.dir={os.path.relpath(tmp_path)}" in line
    assert stopped.value.exit_code == 1
    assert "\n" not in line
    assert 0 < len(launcher.started) < 4
    assert run(asked, launcher) == 0
    assert len(set(points(launcher))) == 4
