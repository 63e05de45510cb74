"""Jobs through submitit on this machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
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
    wait,
)
from running import ROOT
from searching import planned

from eqprop.sweep.run import conduct
from eqprop.sweep.submitit import SubmititLocalLauncher, minutes_for


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def local(tmp_path: Path) -> Iterator[SubmititLocalLauncher]:
    made = SubmititLocalLauncher(terms(tmp_path), 3, tmp_path)
    yield made
    made.close()


def test_twelve_jobs_of_which_some_go_wrong(local: SubmititLocalLauncher, tmp_path: Path) -> None:
    jobs = [job(tmp_path, number, how) for number, how in enumerate(MIXED)]
    ends(drive(local, jobs), MIXED, LIMIT)


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_preempted_job_goes_on_in_its_folder(
    number: int, local: SubmititLocalLauncher, tmp_path: Path
) -> None:
    one = job(tmp_path, 0, "once")
    handle = hanging(local, one)
    os.kill(psutil.Process(pid_of(one.folder)).ppid(), number)
    outcome = wait(handle)
    assert (outcome.state, outcome.objective) == ("done", 0.25), outcome
    assert tries(one.folder) == ["None", "auto"]


def test_a_sweep_whose_job_is_preempted_ends_well(
    local: SubmititLocalLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By SIGTERM to submitit's controller, as from whoever ends what runs here."""
    monkeypatch.setenv("HOW", "once")
    asked = planned(tmp_path / "sweep", "optimizer.lr=1e-3,3e-3", "sweep.jobs=2")

    def preempt() -> None:
        for folder in hung_below(asked.folder, 2):
            worker = psutil.Process(psutil.Process(pid_of(folder)).ppid())
            worker.parent().send_signal(signal.SIGTERM)

    with ThreadPoolExecutor() as pool:
        preempted = pool.submit(preempt)
        summary = conduct(asked, local)
    preempted.result()
    assert (summary.exit_code, summary.objective) == (0, 0.25)
    assert [tries(folder) for folder in sorted(asked.folder.glob("*-*"))] == [["None", "auto"]] * 2


def test_stop_and_a_worker_that_is_killed(local: SubmititLocalLauncher, tmp_path: Path) -> None:
    stopped, orphan = hanging(local, job(tmp_path, 0, "hang")), job(tmp_path, 1, "fine", "wait=2")
    other = local.start(orphan)
    worker = psutil.Process(pid_of(orphan.folder)).ppid()
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


def test_another_sweep_takes_over(tmp_path: Path) -> None:
    one = job(tmp_path, 0, "fine", "wait=2")
    first = SubmititLocalLauncher(terms(tmp_path, None), 1, tmp_path)
    first.start(one)
    pid_of(one.folder)
    outcome = wait(SubmititLocalLauncher(terms(tmp_path), 1, tmp_path).start(one))
    first.close()
    assert (outcome.state, outcome.exit_code) == ("done", 0)  # the worker has told
    assert tries(one.folder) == ["None"]
