"""joblib's workers: each runs the same job process as the default, and takes nobody with it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from jobs import MIXED, drive, ends, job, pid_of, program, until, wait
from running import ROOT

from eqprop.sweep.job import Handle
from eqprop.sweep.joblib import JoblibLauncher
from eqprop.sweep.order import Terms


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JoblibLauncher]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made = JoblibLauncher(Terms(program(tmp_path), timeout=4, grace=0.5), 2, tmp_path)
    yield made
    made.close()


def worker_of(handle: Handle) -> int:
    """The process that watches over a job."""
    until((handle.job.folder / "hangs").exists)
    parent = psutil.Process(pid_of(handle.job.folder)).ppid()
    assert parent != os.getpid()
    return parent


def test_twelve_jobs_of_which_some_go_wrong(launcher: JoblibLauncher, tmp_path: Path) -> None:
    ended = drive(launcher, [job(tmp_path, number, how) for number, how in enumerate(MIXED)])
    ends(ended, MIXED, timeout=4)


def test_a_killed_worker_costs_nobody_anything(launcher: JoblibLauncher, tmp_path: Path) -> None:
    """Its own job goes on without it, and the next one gets a new worker."""
    orphan = launcher.start(job(tmp_path, 0, "fine", "wait=2"))
    other = launcher.start(job(tmp_path, 1, "fine", "wait=1"))
    os.kill(psutil.Process(pid_of(orphan.job.folder)).ppid(), signal.SIGKILL)
    assert wait(other).state == "done"
    outcome = wait(orphan)
    assert (outcome.state, outcome.objective) == ("done", 0.25)
    assert drive(launcher, [job(tmp_path, 2, "fine"), job(tmp_path, 3, "fine")])[3].state == "done"


def test_a_job_that_dies_with_its_worker(launcher: JoblibLauncher, tmp_path: Path) -> None:
    handle = launcher.start(job(tmp_path, 0, "hang"))
    worker = worker_of(handle)
    os.kill(worker, signal.SIGSTOP)  # it must not see how the job ends
    os.kill(pid_of(handle.job.folder), signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    outcome = wait(handle)
    assert outcome.state == "failed"
    assert str(outcome.reason).startswith("its worker died")


def test_stop(launcher: JoblibLauncher, tmp_path: Path) -> None:
    handle = launcher.start(job(tmp_path, 0, "hang"))
    worker_of(handle)
    handle.stop()
    outcome = wait(handle)
    assert (outcome.state, outcome.exit_code) == ("interrupted", 143)
    again = launcher.start(job(tmp_path, 1, "fine"))  # the wish was for that job alone
    assert wait(again).state == "done"


def test_workers_do_not_hear_ctrl_c(launcher: JoblibLauncher, tmp_path: Path) -> None:
    handle = launcher.start(job(tmp_path, 0, "fine", "wait=1"))
    os.kill(psutil.Process(pid_of(handle.job.folder)).ppid(), signal.SIGINT)
    assert wait(handle).state == "done"
    assert "joblib" in sys.modules
