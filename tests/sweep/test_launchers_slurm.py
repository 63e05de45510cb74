"""Jobs through submitit on a real Slurm (tests/support/slurm.sh)."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from clusters import a_slurm, number_of, state_of, steps_of
from jobs import (
    LIMIT,
    MIXED,
    drive,
    ends,
    hanging,
    hung_below,
    job,
    pid_of,
    program,
    tries,
    until,
    wait,
)
from running import status
from searching import planned

from eqprop.run.errors import ConfigError
from eqprop.sweep.job import Handle, Job
from eqprop.sweep.start import conduct

submitit = pytest.importorskip("submitit", reason="needs submitit")
SlurmLauncher = pytest.importorskip("eqprop.sweep.slurm").SlurmLauncher


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    with a_slurm() as variables, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", variables["SLURM_CONF"])
        yield


@pytest.fixture
def cluster(tmp_path: Path, slurm: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(submitit.SlurmJob.watcher, "_delay_s", 0.3)
    monkeypatch.setattr(submitit.SlurmJob, "_results_timeout_s", 2)  # no slow file system here
    made = SlurmLauncher(4, tmp_path)
    yield made
    made.close()


def test_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no Slurm here"):
        SlurmLauncher(1, tmp_path)


def test_twelve_jobs_on_slurm(tmp_path: Path, slurm: None) -> None:
    """A hung one ends long before Slurm's limit."""
    made = SlurmLauncher(4, tmp_path)
    handles: dict[int, Handle] = {}

    class Noting:
        capacity = made.capacity

        def start(self, one: Job) -> Handle:
            handles[one.number] = made.start(one)
            return handles[one.number]

        def close(self) -> None:
            """Nothing to close."""

    jobs = [job(tmp_path, number, how) for number, how in enumerate(MIXED)]
    ends(drive(Noting(), jobs), MIXED, LIMIT)
    for number in range(len(MIXED)):
        until(
            lambda n=number: (
                not state_of(number_of(handles[n])).startswith(("RUNNING", "COMPLETING"))
            )
        )
        assert state_of(number_of(handles[number])) == "COMPLETED 0:0 0"  # each has told its end
    made.close()


def start_again(number: str, meanwhile: Callable[[], bool]) -> None:
    """Have a job that is queued again start now: Slurm holds it back for two minutes.

    By then all of its first attempt must have ended.
    """
    until(lambda: state_of(number).endswith(" 1"))
    until(lambda: state_of(number).startswith("PENDING"))
    assert meanwhile()
    until(lambda: not steps_of(number))
    time.sleep(1.5)
    subprocess.run(["scontrol", "update", f"job={number}", "StartTime=now"], check=True)


def test_a_job_that_slurm_queues_again_goes_on(cluster: Any, tmp_path: Path) -> None:
    one = job(tmp_path, 0, "once", timeout=None)
    handle = hanging(cluster, one)
    number = number_of(handle)
    subprocess.run(["scontrol", "requeue", number], check=True)
    start_again(number, meanwhile=lambda: handle.poll() is None)
    outcome = wait(handle)
    assert (outcome.state, outcome.reason) == ("done", None)
    assert number_of(handle) == number
    assert tries(one.folder) == ["None", "auto"]


@pytest.mark.parametrize("name", ["USR2", "TERM"])
def test_a_job_that_slurm_ends_is_submitted_again(name: str, cluster: Any, tmp_path: Path) -> None:
    """As before its time is over, or for another job; not more often than asked for."""
    one = job(tmp_path, 0, "once", timeout=None)
    handle = hanging(cluster, one)
    first = number_of(handle)
    subprocess.run(["scancel", f"--signal={name}", first], check=True)
    outcome = wait(handle)
    assert (outcome.state, outcome.reason) == ("done", None)
    assert number_of(handle) != first
    assert tries(one.folder) == ["None", "auto"]
    cluster.requeues = 0
    other = hanging(cluster, job(tmp_path, 1, "hang", timeout=None))
    subprocess.run(["scancel", f"--signal={name}", number_of(other)], check=True)
    assert wait(other).state == "interrupted"


def test_a_sweep_whose_job_is_preempted_ends_well(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOW", "once")
    asked = planned(tmp_path / "sweep", "optimizer.lr=1e-3")

    def preempt() -> None:
        hung_below(asked.folder, 1)
        command = ["squeue", "--me", "--noheader", "--format=%A"]
        (number,) = subprocess.check_output(command, text=True).split()
        subprocess.run(["scontrol", "requeue", number], check=True)
        start_again(number, lambda: True)

    with ThreadPoolExecutor() as pool:
        preempted = pool.submit(preempt)
        assert conduct(replace(asked, program=program(tmp_path)), cluster) == 0
    preempted.result()
    assert [tries(folder) for folder in asked.folder.glob("0-*")] == [["None", "auto"]]


def test_a_cancelled_job_is_not_queued_again(cluster: Any, tmp_path: Path) -> None:
    handle = hanging(cluster, job(tmp_path, 0, "hang", timeout=None))
    subprocess.run(["scancel", number_of(handle)], check=True)
    outcome = wait(handle)
    assert outcome.state == "interrupted"
    until(lambda: not state_of(number_of(handle)).startswith(("RUNNING", "COMPLETING")))
    state, _, restarts = state_of(number_of(handle)).split()
    assert (state, restarts) == ("CANCELLED", "0")


def test_stop_what_runs_and_what_waits(cluster: Any, tmp_path: Path) -> None:
    running, waiting = (job(tmp_path, number, "hang", timeout=None) for number in range(2))
    runs = hanging(cluster, running)
    cluster._executor.update_parameters(cpus_per_task=4)
    waits = cluster.start(waiting)
    for handle in (runs, waits):
        handle.stop()
    assert (wait(runs).state, status(running.folder)["state"]) == ("interrupted", "interrupted")
    assert wait(waits).state == "interrupted"
    assert not (waiting.folder / "tries").exists()


def test_a_job_whose_sweep_was_killed_is_taken_back_and_resumed(
    cluster: Any, tmp_path: Path
) -> None:
    """Slurm knows nothing of the sweep's end; the next one's job waits until this one has saved."""
    one = job(tmp_path, 0, "once", timeout=None)
    first = number_of(hanging(cluster, one))
    again = SlurmLauncher(4, tmp_path).start(one)
    outcome = wait(again)
    assert (outcome.state, outcome.exit_code) == ("done", 0)
    assert state_of(first).startswith("CANCELLED")
    assert tries(one.folder) == ["None", "auto"]


def test_a_worker_that_is_killed_on_slurm(cluster: Any, tmp_path: Path) -> None:
    """Slurm tells, and nobody else is the worse for it."""
    cluster.requeues = 0
    other = cluster.start(job(tmp_path, 1, "fine", "wait=3"))
    one = job(tmp_path, 0, "hang", timeout=None)
    handle = hanging(cluster, one)
    os.kill(psutil.Process(pid_of(one.folder)).ppid(), signal.SIGKILL)
    assert wait(other).state == "done"
    outcome = wait(handle)
    assert outcome.state in ("interrupted", "failed")
    assert "SIGTERM" in str(outcome.reason) or "FAILED" in str(outcome.reason)
