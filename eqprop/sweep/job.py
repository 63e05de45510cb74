"""What passes between a sweep and its launcher: jobs go in, outcomes come back."""

from __future__ import annotations

import json
import math
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from eqprop.run.files import write_atomically
from eqprop.run.lock import read_status
from eqprop.run.redact import redact
from eqprop.run.text import one_line

CONSOLE = "console.log"  # what a job printed, in its folder
STOPPED = "stopped by the sweep"


@dataclass(frozen=True)
class Job:
    """One run of a sweep, ready to be started by any process that sees its folder."""

    number: int  # unique in the sweep
    label: str  # for progress lines: the overrides that differ
    folder: Path
    command: tuple[str, ...]  # the program and its arguments, but for ``resume``
    cwd: str
    env: dict[str, str]  # variables to set beside those that are there
    timeout: float | None = None  # seconds it may take
    grace: float = 30.0  # seconds from being asked to stop to being killed

    def arguments(self) -> list[str]:
        """Return the command line; it resumes what an earlier process of the job left."""
        resumes = (self.folder / "status.json").exists()
        return [*self.command, *(["resume=auto"] if resumes else [])]


@dataclass(frozen=True)
class Outcome:
    """How a job ended; it is its own handle where it could not even be started."""

    state: str  # done, failed, pruned or interrupted
    objective: float | None = None  # finite when the job is done
    reason: str | None = None  # one line when it is not
    exit_code: int | None = None  # negative: the signal that killed it
    seconds: float = 0.0

    def poll(self) -> Outcome:
        return self

    def stop(self) -> None:
        pass


class Handle(Protocol):
    """A job that was started."""

    def poll(self) -> Outcome | None:
        """Return how it ended, None while it waits or runs; never raises."""
        ...

    def stop(self) -> None:
        """Ask it to save and end, and kill it after a grace time; ``poll`` then tells."""
        ...


class Launcher:
    """Starts jobs by ``submit``, on this machine or elsewhere, ``capacity`` at a time."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.handles: list[Any] = []

    def submit(self, job: Job) -> Handle:
        """Hand a job on; one whose folder holds an unfinished run goes on there."""
        raise NotImplementedError

    def start(self, job: Job) -> Handle:
        """Start a job; one that cannot be started has failed."""
        try:
            handle = self.submit(job)
        except Exception as error:  # whatever sbatch does not like, or Ray itself is gone
            why = one_line(getattr(error, "strerror", None) or error, 300)
            return Outcome("failed", reason=f"could not be started: {why}")
        self.handles = [one for one in self.handles if one.poll() is None]
        self.handles.append(handle)
        return handle

    def close(self) -> None:
        """Ask jobs that still run to save and end, and let go of what the launcher holds."""
        for handle in self.handles:
            if handle.poll() is None:
                handle.stop()


def judge(
    folder: Path,
    exit_code: int | None,
    seconds: float = 0.0,
    pid: int | None = None,
    lost: str = "its process vanished: it was killed, or the machine went down",
) -> Outcome:
    """Return how a job ended: done only if its exit status and its record both say so.

    An ``exit_code`` of None: nobody saw it end; then ``lost`` is the reason if it recorded none.
    What another process than ``pid`` recorded in ``folder`` is not this one's reason.
    """
    status = read_status(folder) or {}
    value = status.get("objective")
    finite = isinstance(value, (int, float)) and math.isfinite(value)
    if status.get("state") == "done" and finite and not exit_code:
        return Outcome("done", value, None, exit_code, seconds)
    own = status if pid is None or status.get("pid") == pid else {}
    killed = exit_code is not None and exit_code < 0
    state = "interrupted" if own.get("state") == "interrupted" and not killed else "failed"
    reason = one_line(redact(_reason(folder, own, exit_code, lost)), 1000)
    return Outcome(state, None, reason, exit_code, seconds)


def record_end(folder: Path, outcome: Outcome, words: list[str]) -> None:
    """Write into a job's folder how it failed or was pruned, where it could not do so itself.

    ``words`` are its overrides, for the record of a job that never began.
    """
    status = read_status(folder) or {}
    known = (status.get("state"), status.get("reason"))
    if outcome.state in ("done", "interrupted") or known == (outcome.state, outcome.reason):
        return
    status |= {"state": outcome.state, "reason": outcome.reason, "objective": None}
    status["exit_code"] = outcome.exit_code
    overrides = folder / ".hydra" / "overrides.yaml"
    with suppress(OSError):  # the sweep's own record tells as well
        overrides.parent.mkdir(parents=True, exist_ok=True)
        if not overrides.exists():
            write_atomically(overrides, json.dumps(words).encode() + b"\n")  # which is YAML, too
        write_atomically(folder / "status.json", json.dumps(status, indent=2).encode() + b"\n")


def _reason(folder: Path, status: dict[str, Any], code: int | None, lost: str) -> str:
    state, told = status.get("state"), status.get("reason")
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    if state == "done":
        return f"exit status {code} at its end" if code else str(told or "no finite objective")
    if state in ("failed", "interrupted") and told:
        return str(told)
    if not code:
        return lost if code is None else "ended with status 0 but did not finish"
    errors = []
    if not status:  # a mistake in the command, found before there was a record
        console = (folder / CONSOLE).read_text(encoding="utf-8", errors="replace")
        errors = [line[7:] for line in console.splitlines() if line.startswith("error: ")]
    return errors[-1] if errors else f"exit status {code}"
