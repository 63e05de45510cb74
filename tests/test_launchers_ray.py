"""Jobs as tasks of a real Ray on this machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from jobs import MIXED, drive, ends, job, pid_of, program, until, wait
from running import ROOT

from eqprop.sweep.order import Terms

pytest.importorskip("ray", reason='needs Ray: pip install "eqprop[ray]"')

# Ray's own modules warn of what they import
pytestmark = pytest.mark.filterwarnings("default:::ray", "default::ResourceWarning")

TIMEOUT = 6  # seconds


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A launcher on a Ray of two processors; it takes seconds to start."""
    from eqprop.sweep.ray import RayLauncher

    folder = tmp_path_factory.mktemp("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        made = RayLauncher(Terms(program(folder), timeout=TIMEOUT, grace=0.5), 2, folder)
        yield made
        made.close()


def test_twelve_jobs_of_which_some_go_wrong(launcher: Any, tmp_path: Path) -> None:
    ended = drive(launcher, [job(tmp_path, number, how) for number, how in enumerate(MIXED)])
    ends(ended, MIXED, TIMEOUT)


def test_a_killed_worker_costs_its_own_job_at_most(launcher: Any, tmp_path: Path) -> None:
    one, other = job(tmp_path, 0, "fine", "wait=2"), job(tmp_path, 1, "fine", "wait=1")
    handles = [launcher.start(one), launcher.start(other)]
    worker = psutil.Process(pid_of(one.folder)).ppid()
    pid_of(other.folder)
    os.kill(worker, signal.SIGKILL)
    assert wait(handles[1]).state == "done"
    outcome = wait(handles[0])  # Ray may end what its dead worker had started
    assert outcome.state == "done" or str(outcome.reason).startswith("its worker died")
    assert wait(launcher.start(job(tmp_path, 2, "fine"))).state == "done"


def test_stop(launcher: Any, tmp_path: Path) -> None:
    one = job(tmp_path, 0, "hang")
    handle = launcher.start(one)
    until((one.folder / "hangs").exists)
    handle.stop()
    outcome = wait(handle)
    assert (outcome.state, outcome.exit_code) == ("interrupted", 143)


def test_it_tells_nobody(launcher: Any) -> None:
    from ray._common.usage import usage_lib

    assert not usage_lib.usage_stats_enabled()
