"""One job, one process: whatever it does, its outcome says so, and the others run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from jobs import drive, job, program, until, wait
from running import ROOT

from eqprop.sweep import console_log, marks
from eqprop.sweep.handles import Adopted
from eqprop.sweep.local import LocalLauncher
from eqprop.sweep.order import Terms

ENDS: dict[str, tuple[str, int, str]] = {
    "fine": ("done", 0, ""),
    "raise": ("failed", 1, "a bug"),
    "segfault": ("failed", -signal.SIGSEGV, "killed by SIGSEGV"),
    "kill": ("failed", -signal.SIGKILL, "killed by SIGKILL"),
    "early": ("failed", 0, "ended with status 0 but did not finish"),
    "_exit": ("failed", 0, "ended with status 0 but did not finish"),
    "exit0": ("failed", 0, "sys.exit(0) before the end of the run"),
    "exit3": ("failed", 3, "3"),
    "_exit7": ("failed", 7, "exit status 7"),
    "late": ("failed", 5, "exit status 5 at its end"),
    "mistake": ("failed", 2, "optimizer.lr=x: must be a finite number > 0"),
    "nan": ("failed", 0, "the objective is nan"),
    "infinite": ("failed", 0, "the objective is inf"),
    "nothing": ("failed", 0, "no finite objective"),
}


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def launcher(folder: Path, timeout: float | None = None, capacity: int = 2) -> LocalLauncher:
    return LocalLauncher(Terms(program(folder), timeout=timeout, grace=0.5), capacity)


def test_every_way_to_end(tmp_path: Path) -> None:
    jobs = [job(tmp_path, number, how) for number, how in enumerate(ENDS)]
    ended = drive(launcher(tmp_path), jobs)
    for number, how in enumerate(ENDS):
        outcome = ended[number]
        state, code, reason = ENDS[how]
        assert (outcome.state, outcome.exit_code, outcome.reason or "") == (state, code, reason)
        assert outcome.objective == (0.25 if state == "done" else None)
        assert f"this is {how}" in (jobs[number].folder / "console.log").read_text()


def test_an_old_record_is_no_reason(tmp_path: Path) -> None:
    """The folder says why an earlier process failed; this one never got so far."""
    wait(launcher(tmp_path).start(job(tmp_path, 0, "raise")))
    again = job(tmp_path, 0, "mistake")
    (tmp_path / "jobs" / "0-raise").rename(again.folder)
    outcome = wait(launcher(tmp_path).start(again))
    assert (outcome.state, outcome.exit_code) == ("failed", 2)
    assert outcome.reason == "optimizer.lr=x: must be a finite number > 0"


def test_a_job_that_hangs_is_asked_then_killed_with_all_it_started(tmp_path: Path) -> None:
    start = time.monotonic()
    jobs = [job(tmp_path, 0, "hang"), job(tmp_path, 1, "deaf"), job(tmp_path, 2, "fine")]
    ended = drive(launcher(tmp_path, timeout=1.5), jobs)
    assert time.monotonic() - start < 20
    assert ended[2].state == "done"
    for number, code in ((0, 143), (1, -signal.SIGKILL)):
        assert (ended[number].state, ended[number].exit_code) == ("failed", code)
        assert ended[number].reason == "hung: no end after 1.5 s (sweep.job_timeout)"
    child = int((jobs[1].folder / "child").read_text())
    until(lambda: not Path(f"/proc/{child}").exists() or _is_zombie(child))


def _is_zombie(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def test_stop(tmp_path: Path) -> None:
    handle = launcher(tmp_path).start(job(tmp_path, 0, "hang"))
    until((handle.job.folder / "hangs").exists)
    assert handle.poll() is None
    handle.stop()
    handle.stop()
    outcome = wait(handle)
    assert (outcome.state, outcome.exit_code) == ("interrupted", 143)
    handle.stop()
    assert handle.poll() is outcome


def test_it_goes_on_in_its_folder(tmp_path: Path) -> None:
    one = job(tmp_path, 0, "once")
    first = launcher(tmp_path).start(one)
    until((one.folder / "hangs").exists)
    first.stop()
    assert wait(first).state == "interrupted"
    assert wait(launcher(tmp_path).start(one)).state == "done"
    tries = (one.folder / "tries").read_text().splitlines()
    assert [line.split()[1] for line in tries] == ["None", "auto"]


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    terms = Terms((str(tmp_path / "nothing"),))
    outcome = wait(LocalLauncher(terms, 1).start(job(tmp_path, 0, "fine")))
    assert (outcome.state, outcome.exit_code) == ("failed", None)
    assert str(outcome.reason).startswith("could not be started: No such file")


def test_the_console_is_bounded_and_holds_the_newest(tmp_path: Path) -> None:
    one = job(tmp_path, 0, "noisy")
    assert wait(launcher(tmp_path).start(one)).state == "done"
    text = (one.folder / "console.log").read_text()
    assert len(text) <= console_log.MOST
    assert text.startswith("[what came before is left out]\n")
    assert text.endswith("x 199\nthe end\n")


def test_no_secret_stays_in_the_console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_TOKEN", "xyzzy-plugh")
    script = tmp_path / "tells.py"
    script.write_text("import os; print('it is', os.environ['LAB_TOKEN'])")
    terms = Terms((sys.executable, str(script)))
    one = job(tmp_path, 0, "fine")
    wait(LocalLauncher(terms, 1).start(one))
    assert (one.folder / "console.log").read_text() == "it is ***\n"


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its job can neither print nor record why it ends."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=0))
    outcome = wait(launcher(tmp_path).start(job(tmp_path, 0, "_exit7")))
    assert outcome.reason == "exit status 7; its disk is full"


SWEEPER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from jobs import job
from eqprop.sweep.local import LocalLauncher
from eqprop.sweep.order import Terms
folder = Path(sys.argv[1])
launcher = LocalLauncher(Terms((sys.executable, str(folder / "job.py"))), 2)
handles = [launcher.start(job(folder, n, *how.split())) for n, how in enumerate(sys.argv[2:])]
time.sleep(600)
"""


@pytest.fixture
def orphans(tmp_path: Path) -> Iterator[list[str]]:
    """What jobs to leave behind: their sweeper is killed as soon as all of them run."""
    hows: list[str] = []
    yield hows
    for folder in (tmp_path / "jobs").iterdir():
        pid = marks.local_pid(folder)
        if pid is not None and marks.is_running(folder):
            os.killpg(pid, signal.SIGKILL)


def kill_a_sweeper(folder: Path, hows: list[str]) -> None:
    program(folder)
    source = SWEEPER.format(tests=str(ROOT / "tests"))
    with subprocess.Popen([sys.executable, "-c", source, str(folder), *hows]) as sweeper:
        paths = [job(folder, n, how.split()[0]).folder / "tries" for n, how in enumerate(hows)]
        until(lambda: all(path.exists() for path in paths))
        sweeper.kill()


def test_orphans_run_on_and_are_adopted(tmp_path: Path, orphans: list[str]) -> None:
    orphans += ["fine wait=2", "hang", "deaf"]
    kill_a_sweeper(tmp_path, orphans)
    new = launcher(tmp_path)
    jobs = [job(tmp_path, n, *how.split()) for n, how in enumerate(orphans)]
    handles = [new.start(one) for one in jobs]
    assert all(isinstance(handle, Adopted) for handle in handles)
    assert [handle.poll() for handle in handles] == [None] * 3
    done = wait(handles[0])
    assert (done.state, done.objective, done.exit_code) == ("done", 0.25, None)
    assert done.seconds >= 2
    handles[1].stop()
    assert wait(handles[1]).state == "interrupted"
    os.killpg(marks.owner(jobs[2].folder)["pid"], signal.SIGKILL)
    lost = wait(handles[2])
    assert (lost.state, lost.reason) == (
        "failed",
        "its process vanished: it was killed, or the machine went down",
    )
    assert [len((one.folder / "tries").read_text().splitlines()) for one in jobs] == [1, 1, 1]


def test_an_orphan_is_held_to_the_limit(tmp_path: Path, orphans: list[str]) -> None:
    orphans += ["deaf"]
    kill_a_sweeper(tmp_path, orphans)
    outcome = wait(launcher(tmp_path, timeout=0.5).start(job(tmp_path, 0, "deaf")))
    assert outcome.state == "failed"
    assert str(outcome.reason).startswith("hung")


def test_the_lock_is_there_before_the_job_says_anything(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text("import time; time.sleep(600)")
    handle = LocalLauncher(Terms((sys.executable, str(script)), grace=0.2), 1).start(
        job(tmp_path, 0, "fine")
    )
    assert marks.is_running(handle.job.folder)
    handle.stop()
    wait(handle)
    assert not marks.is_running(handle.job.folder)


def test_closing_asks_what_runs_to_end(tmp_path: Path) -> None:
    one = launcher(tmp_path)
    handle = one.start(job(tmp_path, 0, "hang"))
    until((handle.job.folder / "hangs").exists)
    one.close()
    assert wait(handle).state == "interrupted"
