"""Jobs through submitit on a real Slurm (tests/slurm.sh)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
    terms,
    tries,
    until,
    wait,
)
from running import ROOT
from searching import planned

from eqprop.run.errors import ConfigError
from eqprop.sweep import marks
from eqprop.sweep.job import Handle, Job
from eqprop.sweep.queue import SlurmQueue
from eqprop.sweep.run import conduct
from eqprop.sweep.submitit import TICKET, SubmititSlurmLauncher


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    with a_slurm() as variables, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", variables["SLURM_CONF"])
        yield


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def cluster(tmp_path: Path, slurm: None) -> Iterator[SubmititSlurmLauncher]:
    made = SubmititSlurmLauncher(terms(tmp_path, None), 4, tmp_path)
    made.queue = SlurmQueue(every=0.3, patience=5)  # no slow file system here
    yield made
    made.close()


def test_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no Slurm here"):
        SubmititSlurmLauncher(terms(tmp_path), 1, tmp_path)


def test_twelve_jobs_on_slurm(tmp_path: Path, slurm: None) -> None:
    """A failed job is a failed one to Slurm too, and a hung one ends long before Slurm's limit."""
    made = SubmititSlurmLauncher(terms(tmp_path), 4, tmp_path)
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
    for number, how in enumerate(MIXED):
        expected = "COMPLETED 0:0 0" if how == "fine" else "FAILED 1:0 0"
        until(
            lambda n=number: (
                not state_of(number_of(handles[n])).startswith(("RUNNING", "COMPLETING"))
            )
        )
        assert state_of(number_of(handles[number])) == expected, how
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


@pytest.mark.parametrize(
    "command", [["scancel", "--signal=USR2"], ["scancel", "--signal=TERM"],
                ["scontrol", "requeue"]], ids=["USR2", "TERM", "requeue"],
)  # fmt: skip
def test_a_job_that_slurm_preempts_goes_on(
    command: list[str], cluster: SubmititSlurmLauncher, tmp_path: Path
) -> None:
    """As before its time is over, or for another job; it is queued again and resumes."""
    one = job(tmp_path, 0, "once")
    handle = hanging(cluster, one)
    number = number_of(handle)
    subprocess.run([*command, number], check=True)
    start_again(number, meanwhile=lambda: handle.poll() is None)
    outcome = wait(handle)
    assert (outcome.state, outcome.reason) == ("done", None)
    assert tries(one.folder) == ["None", "auto"]


def test_a_sweep_whose_job_is_preempted_ends_well(
    cluster: SubmititSlurmLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOW", "once")
    asked = planned(tmp_path / "sweep", "optimizer.lr=1e-3")

    def preempt() -> None:
        (folder,) = hung_below(asked.folder, 1)
        number = json.loads((folder / TICKET).read_text())["id"]
        subprocess.run(["scontrol", "requeue", number], check=True)
        start_again(number, lambda: True)

    with ThreadPoolExecutor() as pool:
        preempted = pool.submit(preempt)
        summary = conduct(asked, cluster)
    preempted.result()
    assert (summary.exit_code, summary.objective) == (0, 0.25)
    assert [tries(folder) for folder in asked.folder.glob("0-*")] == [["None", "auto"]]


def test_a_cancelled_job_is_not_queued_again(
    cluster: SubmititSlurmLauncher, tmp_path: Path
) -> None:
    handle = hanging(cluster, job(tmp_path, 0, "hang"))
    subprocess.run(["scancel", number_of(handle)], check=True)
    outcome = wait(handle)
    assert outcome.state == "interrupted"
    until(lambda: not state_of(number_of(handle)).startswith(("RUNNING", "COMPLETING")))
    state, _, restarts = state_of(number_of(handle)).split()
    assert (state, restarts) == ("CANCELLED", "0")


def test_stop_what_runs_and_what_waits(cluster: SubmititSlurmLauncher, tmp_path: Path) -> None:
    runs = hanging(cluster, job(tmp_path, 0, "hang"))
    cluster._executor.update_parameters(cpus_per_task=4)
    waits = cluster.start(job(tmp_path, 1, "fine"))
    for handle in (runs, waits):
        handle.stop()
    assert wait(runs).exit_code == 143
    assert wait(waits).state == "interrupted"
    assert not (waits.job.folder / "tries").exists()


def test_another_sweep_takes_over_on_slurm(cluster: SubmititSlurmLauncher, tmp_path: Path) -> None:
    one = job(tmp_path, 0, "fine", "wait=2")
    cluster.start(one)
    again = SubmititSlurmLauncher(terms(tmp_path, None), 4, tmp_path).start(one)
    outcome = wait(again)
    assert (outcome.state, outcome.exit_code) == ("done", 0)
    assert tries(one.folder) == ["None"]


def test_a_worker_that_is_killed_on_slurm(cluster: SubmititSlurmLauncher, tmp_path: Path) -> None:
    """Slurm tells, and nobody else is the worse for it."""
    other = cluster.start(job(tmp_path, 1, "fine", "wait=3"))
    one = job(tmp_path, 0, "hang")
    handle = hanging(cluster, one)
    os.kill(psutil.Process(pid_of(one.folder)).ppid(), signal.SIGKILL)
    assert wait(other).state == "done"
    if marks.is_running(one.folder):
        os.killpg(pid_of(one.folder), signal.SIGKILL)
    outcome = wait(handle)
    assert outcome.state == "failed"
    assert "FAILED" in str(outcome.reason)
