"""Drives launchers as a sweeper does; jobs that end in every way there is, without torch."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from running import ROOT

from eqprop.sweep.job import Handle, Job, Launcher, Outcome

PROGRAM = """
import ctypes, os, signal, sys, time
from pathlib import Path
from eqprop.run.folder import RunFolder
from eqprop.run.signals import listening

words = dict(word.split("=", 1) for word in sys.argv[1:])
how, folder = words.get("how", os.environ.get("HOW")), Path(words["hydra.run.dir"].strip('"'))
print("this is", how, flush=True)
if how == "mistake":
    print("error: optimizer.lr=x: must be a finite number > 0", file=sys.stderr)
    sys.exit(2)
if how == "early":
    sys.exit(0)
tries = folder / "tries"
with tries.open("a") as file:
    file.write(f"{os.getpid()} {words.get('resume')}\\n")
(folder / "sees").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "everything"))
try:
    with listening() as stop, RunFolder.claim(folder, resume="resume" in words) as run:
        if how == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
            if os.fork() == 0:
                (folder / "child").write_text(str(os.getpid()))
                time.sleep(600)
        if how == "raise":
            raise ValueError("a bug")
        if how == "segfault":
            ctypes.string_at(0)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "exit0":
            sys.exit(0)
        if how == "exit3":
            sys.exit(3)
        if how == "_exit":
            os._exit(0)
        if how == "_exit7":
            os._exit(7)
        if how == "noisy":
            for number in range(200):
                print("x" * 20_000, number, flush=True)
            time.sleep(0.5)  # what is written while it is being cut may be lost
            print("the end", flush=True)
        if how in ("hang", "deaf") or how == "once" and tries.read_text().count("\\n") == 1:
            (folder / "hangs").touch()
            time.sleep(600)
        value = {"nan": float("nan"), "nothing": None, "infinite": float("inf")}.get(how, 0.25)
        time.sleep(float(words.get("wait", "0")))
        run.finish("done", objective=value)
except KeyboardInterrupt as stopped:
    sys.exit(stopped.exit_code)
if how == "late":
    os._exit(5)
"""


LIMIT = 6  # seconds of a job
MIXED = ["fine"] * 6 + ["kill", "segfault", "exit0", "nan", "deaf", "raise"]
"""How twelve jobs end of which half go wrong."""


def program(folder: Path) -> tuple[str, ...]:
    """The words that start a job which misbehaves as its override ``how`` says."""
    script = folder / "job.py"
    script.write_text(PROGRAM)
    return (sys.executable, str(script))


def job(
    folder: Path,
    number: int,
    how: str,
    *more: str,
    timeout: float | None = LIMIT,
    grace: float = 0.5,
) -> Job:
    """A job that misbehaves as ``how`` says."""
    own = folder / "jobs" / f"{number}-{how}"
    words = (f"how={how}", *more, f'hydra.run.dir="{own}"')
    env = {"PYTHONPATH": str(ROOT)}
    command = (*program(folder), *words)
    return Job(number, f"how={how}", own, command, str(folder), env, timeout, grace)


def wait(handle: Handle, timeout: float = 60.0) -> Outcome:
    """Poll until the job has ended."""
    deadline = time.monotonic() + timeout
    while (outcome := handle.poll()) is None:
        assert time.monotonic() < deadline, f"{handle} does not end"
        time.sleep(0.02)
    return outcome


def drive(launcher: Launcher, jobs: Sequence[Job], timeout: float = 120.0) -> dict[int, Outcome]:
    """Start the jobs as the launcher has room for them; how each ended, by number."""
    waiting, running = list(jobs), dict[int, Handle]()
    ended: dict[int, Outcome] = {}
    deadline = time.monotonic() + timeout
    while waiting or running:
        assert time.monotonic() < deadline, running
        while waiting and len(running) < launcher.capacity:
            one = waiting.pop(0)
            running[one.number] = launcher.start(one)
        for number, handle in list(running.items()):
            if (outcome := handle.poll()) is not None:
                ended[number] = outcome
                del running[number]
        time.sleep(0.02)
    return ended


def tries(folder: Path) -> list[str]:
    """What each of the processes of the job in ``folder`` was told about ``resume``."""
    return [line.split()[1] for line in (folder / "tries").read_text().splitlines()]


def hung_below(folder: Path, count: int) -> list[Path]:
    """The folders of so many jobs of a sweep, once they hang."""
    until(lambda: len([*folder.glob("*/hangs")]) == count)
    return [path.parent for path in folder.glob("*/hangs")]


def pid_of(folder: Path) -> int:
    """The first process of the job in ``folder``, once it is there."""
    until(lambda: (folder / "tries").exists() and (folder / "tries").read_text().endswith("\n"))
    return int((folder / "tries").read_text().split()[0])


def hanging(launcher: Launcher, one: Job) -> Handle:
    """Start a job and wait until it hangs."""
    handle = launcher.start(one)
    until((one.folder / "hangs").exists)
    return handle


def until(condition: Any, timeout: float = 30.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ends(ended: dict[int, Outcome], hows: Sequence[str], timeout: float) -> None:
    """Check that each job ended as it was told to."""
    reasons = {
        "fine": None,
        "kill": "killed by SIGKILL",
        "segfault": "killed by SIGSEGV",
        "exit0": "sys.exit(0) before the end of the run",
        "_exit": "ended with status 0 but did not finish",
        "nan": "the objective is nan",
        "raise": "a bug",
        "deaf": f"hung: no end after {timeout:g} s (sweep.job_timeout)",
    }
    assert {n: ended[n].reason for n in ended} == {n: reasons[how] for n, how in enumerate(hows)}
    done = [how == "fine" for how in hows]
    assert [ended[n].state == "done" for n in range(len(hows))] == done
