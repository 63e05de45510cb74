"""One job, one process: whatever it does, its outcome says so, and the others run."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from jobs import drive, job, tries, until, wait
from running import ROOT, python, status

from eqprop.sweep.process import LocalLauncher

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


def launcher(folder: Path) -> LocalLauncher:
    return LocalLauncher(2, folder)


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
    hows = ("hang", "deaf", "fine")
    jobs = [job(tmp_path, number, how, timeout=1.5) for number, how in enumerate(hows)]
    ended = drive(launcher(tmp_path), jobs)
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
    one = job(tmp_path, 0, "hang", timeout=None)
    handle = launcher(tmp_path).start(one)
    until((one.folder / "hangs").exists)
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
    assert tries(one.folder) == ["None", "auto"]


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    one = replace(job(tmp_path, 0, "fine"), command=(str(tmp_path / "nothing"),))
    outcome = wait(launcher(tmp_path).start(one))
    assert (outcome.state, outcome.exit_code) == ("failed", None)
    assert str(outcome.reason).startswith("could not be started: No such file")


def test_no_secret_stays_in_the_console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "xyzzy-plugh-" * 4)
    script = tmp_path / "tells.py"
    script.write_text("import os; print('it is', os.environ['WANDB_API_KEY'])")
    one = replace(job(tmp_path, 0, "fine"), command=(sys.executable, str(script)))
    wait(launcher(tmp_path).start(one))
    assert (one.folder / "console.log").read_text() == "it is ***\n"


SWEEPER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from jobs import job
from eqprop.sweep.process import LocalLauncher
folder = Path(sys.argv[1])
launcher = LocalLauncher(2, folder)
handles = [launcher.start(job(folder, number, how)) for number, how in enumerate(sys.argv[2:])]
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells a job of its parent's death")
def test_jobs_save_and_end_when_their_sweep_is_killed(tmp_path: Path) -> None:
    source = SWEEPER.format(tests=str(ROOT / "tests" / "support"))
    jobs = [job(tmp_path, number, "once") for number in range(2)]
    command = [sys.executable, "-c", source, str(tmp_path), "once", "once"]
    with subprocess.Popen(command) as sweeper:
        until(lambda: all((one.folder / "hangs").exists() for one in jobs))
        sweeper.kill()
    for one in jobs:
        until(lambda folder=one.folder: status(folder)["state"] == "interrupted")
        assert status(one.folder)["reason"] == "interrupted by SIGTERM"
        assert wait(launcher(tmp_path).start(one)).state == "done"
        assert tries(one.folder) == ["None", "auto"]


def test_one_waits_for_what_still_holds_its_folder(tmp_path: Path) -> None:
    """An earlier process that is saving; of one that does not end it says so."""
    one = job(tmp_path, 0, "fine", grace=10)
    one.folder.mkdir(parents=True)
    with python(HOLDER, one.folder, 1.5) as holder:
        assert holder.stdout.readline() == "held\n"
        assert wait(launcher(tmp_path).start(one)).state == "done"
    other = job(tmp_path, 1, "fine", grace=0.2)
    other.folder.mkdir(parents=True)
    with python(HOLDER, other.folder, 60) as holder:
        assert holder.stdout.readline() == "held\n"
        outcome = wait(launcher(tmp_path).start(other))
        assert outcome.state == "interrupted"
        assert "still runs" in str(outcome.reason)
        holder.kill()


HOLDER = """
import sys, time
from pathlib import Path
from eqprop.run.lock import take_lock
lock = take_lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def test_closing_asks_what_runs_to_end(tmp_path: Path) -> None:
    made, one = launcher(tmp_path), job(tmp_path, 0, "hang", timeout=None)
    handle = made.start(one)
    until((one.folder / "hangs").exists)
    made.close()
    assert wait(handle).state == "interrupted"
