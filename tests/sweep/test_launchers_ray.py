"""Jobs as tasks of a real Ray on this machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from jobs import LIMIT, MIXED, drive, ends, job, pid_of, until, wait

pytest.importorskip("ray", reason='needs Ray: pip install "eqprop[ray]"')

# Ray's own modules warn of what they import
pytestmark = pytest.mark.filterwarnings("default:::ray", "default::ResourceWarning")


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A launcher on a Ray of two processors; it takes seconds to start."""
    from eqprop.sweep.ray import RayLauncher

    made = RayLauncher(2, tmp_path_factory.mktemp("ray"))
    yield made
    made.close()


def test_twelve_jobs_of_which_some_go_wrong(launcher: Any, tmp_path: Path) -> None:
    ended = drive(launcher, [job(tmp_path, number, how) for number, how in enumerate(MIXED)])
    ends(ended, MIXED, LIMIT)


def test_a_killed_worker_costs_its_own_job(launcher: Any, tmp_path: Path) -> None:
    one, other = job(tmp_path, 0, "fine", "wait=2"), job(tmp_path, 1, "fine", "wait=1")
    handles = [launcher.start(one), launcher.start(other)]
    worker = psutil.Process(pid_of(one.folder)).ppid()
    pid_of(other.folder)
    os.kill(worker, signal.SIGKILL)
    assert wait(handles[1]).state == "done"
    outcome = wait(handles[0])  # the kernel asks it to save, Ray may be faster and kill it
    assert outcome.state == "interrupted" or "its worker died" in str(outcome.reason)
    assert wait(launcher.start(job(tmp_path, 2, "fine"))).state == "done"


@pytest.mark.slow  # among all other tests a cancellation was lost twice; the cause is not known
def test_stop(launcher: Any, tmp_path: Path) -> None:
    one = job(tmp_path, 0, "hang", timeout=None)
    handle = launcher.start(one)
    until((one.folder / "hangs").exists)
    handle.stop()
    outcome = wait(handle)
    assert (outcome.state, outcome.exit_code) == ("interrupted", 143)


def test_it_tells_nobody(launcher: Any) -> None:
    from ray._common.usage import usage_lib

    assert not usage_lib.usage_stats_enabled()
