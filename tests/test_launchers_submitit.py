"""Jobs through submitit: on this machine, and on a real Slurm (tests/slurm.sh)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from jobs import drive, ends, job, program, until, wait
from running import ROOT

from eqprop.errors import ConfigError
from eqprop.sweep import marks
from eqprop.sweep.job import Handle, Job, JobLauncher
from eqprop.sweep.order import Terms
from eqprop.sweep.queue import SlurmQueue
from eqprop.sweep.submitit import (
    SubmititLocalLauncher,
    SubmititSlurmLauncher,
    SubmittedHandle,
    minutes_for,
)

SLURM = ROOT / "tests" / "slurm.sh"
TIMEOUT = 6  # seconds
MIXED = ["fine"] * 6 + ["kill", "segfault", "exit0", "nan", "deaf", "raise"]


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    """A Slurm of one node."""
    folder = tempfile.mkdtemp(prefix="slurm-", dir="/tmp")
    started = subprocess.run([SLURM, "start", folder], capture_output=True, text=True, check=False)
    if started.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"no Slurm on this machine: {started.stderr.strip()}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", f"{folder}/slurm.conf")
        yield
    subprocess.run([SLURM, "stop", folder], check=True, stdin=subprocess.DEVNULL)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def terms(folder: Path, timeout: float | None = TIMEOUT) -> Terms:
    return Terms(program(folder), timeout=timeout, grace=0.5)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[SubmititLocalLauncher]:
    made = SubmititLocalLauncher(terms(tmp_path), 3, tmp_path)
    yield made
    made.close()


@pytest.fixture
def cluster(tmp_path: Path, slurm: None) -> Iterator[SubmititSlurmLauncher]:
    made = SubmititSlurmLauncher(terms(tmp_path, None), 4, tmp_path)
    made.queue = SlurmQueue(every=0.3, patience=5)  # no slow file system here
    yield made
    made.close()


def pid_of(job: Job, attempt: int = 0) -> int:
    tries = job.folder / "tries"
    until(lambda: tries.exists() and len(tries.read_text().splitlines()) > attempt)
    return int(tries.read_text().splitlines()[attempt].split()[0])


def hanging(launcher: JobLauncher, one: Job) -> Handle:
    handle = launcher.start(one)
    until((one.folder / "hangs").exists)
    return handle


def state_of(handle: Handle) -> str:
    """What Slurm says of a job: its state and its exit status."""
    assert isinstance(handle, SubmittedHandle)
    command = ["scontrol", "show", "job", "--oneliner", handle.number]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(word.split("=", 1) for word in said.split() if "=" in word)
    return f"{found['JobState']} {found['ExitCode']} {found['Restarts']}"


def steps_of(handle: SubmittedHandle) -> list[str]:
    """Slurm's own processes of a job."""
    start = f"slurmstepd: [{handle.number}."
    found = (
        " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])
    )
    return [line for line in found if line.startswith(start)]


# on this machine


def test_twelve_jobs_of_which_some_go_wrong(local: SubmititLocalLauncher, tmp_path: Path) -> None:
    jobs = [job(tmp_path, number, how) for number, how in enumerate(MIXED)]
    ends(drive(local, jobs), MIXED, TIMEOUT)


def test_a_preempted_job_goes_on_in_its_folder(
    local: SubmititLocalLauncher, tmp_path: Path
) -> None:
    one = job(tmp_path, 0, "once")
    handle = hanging(local, one)
    os.kill(psutil.Process(pid_of(one)).ppid(), signal.SIGUSR2)
    outcome = wait(handle)
    assert (outcome.state, outcome.objective) == ("done", 0.25), outcome
    tries = (one.folder / "tries").read_text().splitlines()
    assert [line.split()[1] for line in tries] == ["None", "auto"]


def test_stop_and_a_worker_that_is_killed(local: SubmititLocalLauncher, tmp_path: Path) -> None:
    stopped, orphan = hanging(local, job(tmp_path, 0, "hang")), job(tmp_path, 1, "fine", "wait=2")
    other = local.start(orphan)
    worker = psutil.Process(pid_of(orphan)).ppid()
    os.kill(worker, signal.SIGKILL)
    stopped.stop()
    outcome = wait(stopped)
    assert (outcome.state, outcome.exit_code) == ("interrupted", 143)
    assert wait(other).state == "done"  # it outlived its worker


def test_it_does_not_end_by_itself(tmp_path: Path) -> None:
    """By default submitit's local jobs end after an hour or less; ours when they are asked to."""
    made = SubmititLocalLauncher(terms(tmp_path, None), 1, tmp_path)
    assert made._executor.parameters["timeout_min"] >= 365 * 24 * 60
    limited = SubmititLocalLauncher(terms(tmp_path, 7200), 1, tmp_path)
    assert 120 < limited._executor.parameters["timeout_min"] <= 130
    asked = SubmititLocalLauncher(terms(tmp_path, None), 1, tmp_path, timeout_min=90)
    assert asked._executor.parameters["timeout_min"] == 90
    assert minutes_for(terms(tmp_path, None)) is None


def test_another_sweep_takes_over(local: SubmititLocalLauncher, tmp_path: Path) -> None:
    one = job(tmp_path, 0, "fine", "wait=2")
    local.start(one)
    pid_of(one)
    outcome = wait(SubmititLocalLauncher(terms(tmp_path), 1, tmp_path).start(one))
    assert (outcome.state, outcome.exit_code) == ("done", 0)  # the worker has told
    assert len((one.folder / "tries").read_text().splitlines()) == 1


# on Slurm


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
    ends(drive(Noting(), jobs), MIXED, TIMEOUT)
    for number, how in enumerate(MIXED):
        expected = "COMPLETED 0:0 0" if how == "fine" else "FAILED 1:0 0"
        until(lambda n=number: not state_of(handles[n]).startswith(("RUNNING", "COMPLETING")))
        assert state_of(handles[number]) == expected, how
    made.close()


def test_a_job_that_slurm_preempts_goes_on(cluster: SubmititSlurmLauncher, tmp_path: Path) -> None:
    """By SIGUSR2, as before its time is over; it is queued again and resumes in its folder."""
    one = job(tmp_path, 0, "once")
    handle = hanging(cluster, one)
    assert isinstance(handle, SubmittedHandle)
    subprocess.run(["scancel", "--signal=USR2", handle.number], check=True)
    until(lambda: state_of(handle) == "PENDING 0:0 1")
    assert handle.poll() is None
    # Slurm holds back for two minutes what was queued again, until all of it must have ended
    until(lambda: not steps_of(handle))
    time.sleep(1.5)
    subprocess.run(["scontrol", "update", f"job={handle.number}", "StartTime=now"], check=True)
    outcome = wait(handle)
    assert (outcome.state, outcome.reason) == ("done", None)
    tries = (one.folder / "tries").read_text().splitlines()
    assert [line.split()[1] for line in tries] == ["None", "auto"]


def test_a_cancelled_job_is_not_queued_again(
    cluster: SubmititSlurmLauncher, tmp_path: Path
) -> None:
    handle = hanging(cluster, job(tmp_path, 0, "hang"))
    assert isinstance(handle, SubmittedHandle)
    subprocess.run(["scancel", handle.number], check=True)
    outcome = wait(handle)
    assert outcome.state == "interrupted"
    until(lambda: not state_of(handle).startswith(("RUNNING", "COMPLETING")))
    state, _, restarts = state_of(handle).split()
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
    assert len((one.folder / "tries").read_text().splitlines()) == 1


def test_a_worker_that_is_killed_on_slurm(cluster: SubmititSlurmLauncher, tmp_path: Path) -> None:
    """Slurm tells, and nobody else is the worse for it."""
    other = cluster.start(job(tmp_path, 1, "fine", "wait=3"))
    one = job(tmp_path, 0, "hang")
    handle = hanging(cluster, one)
    os.kill(psutil.Process(pid_of(one)).ppid(), signal.SIGKILL)
    assert wait(other).state == "done"
    if marks.is_running(one.folder):
        os.killpg(pid_of(one), signal.SIGKILL)
    outcome = wait(handle)
    assert outcome.state == "failed"
    assert "FAILED" in str(outcome.reason)
