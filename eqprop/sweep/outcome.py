"""How a job ended, judged from its exit status together with what its folder records."""

from __future__ import annotations

import math
import os
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eqprop.run.files import one_line
from eqprop.run.lock import read_status
from eqprop.run.redact import redact
from eqprop.run.signals import EXIT_CODES
from eqprop.sweep.job import Job, Outcome

CONSOLE = "console.log"
"""What a job printed, in its folder."""

STOPPED = "stopped by the sweep"
_TAIL = 20_000  # bytes
_LITTLE = 64 * 1024  # bytes: too little for a run's record


@dataclass(frozen=True)
class End:
    """What is known of the end of a job's process.

    Attributes:
        exit_code: negative: the signal that killed it; None: nobody saw it end.
        seconds: from its start.
        pid: of the process; None: not known.
        hung: why it was stopped, if it took too long.
        stopped: why it was stopped, if somebody asked for it.
        lost: what is known of a process that nobody saw end.
    """

    exit_code: int | None
    seconds: float
    pid: int | None = None
    hung: str | None = None
    stopped: str | None = None
    lost: str = "its process vanished: it was killed, or the machine went down"


def judge(job: Job, end: End) -> Outcome:
    """Return the job's outcome: done only if both say so and its objective is finite."""
    status = read_status(job.folder) or {}
    objective = _finite(status.get("objective"))
    code = end.exit_code
    if status.get("state") == "done" and objective is not None and not code:
        return Outcome(job, "done", objective, None, code, end.seconds)
    # what an earlier process recorded is not this one's reason
    own = status if end.pid is None or status.get("pid") == end.pid else {}
    if end.hung is not None:
        return Outcome(job, "failed", None, end.hung, code, end.seconds)
    if end.stopped is not None:
        return Outcome(job, "interrupted", None, end.stopped, code, end.seconds)
    interrupted = own.get("state") == "interrupted" and (code is None or _is_interruption(code))
    reason = one_line(redact(_reason(job.folder, own, end)), 1000)
    return Outcome(job, "interrupted" if interrupted else "failed", None, reason, code, end.seconds)


def hung(limit: float) -> str:
    """The reason of a job that took longer than ``limit`` seconds."""
    return f"hung: no end after {limit:g} s (sweep.job_timeout)"


def _reason(folder: Path, status: dict[str, Any], end: End) -> str:
    state, told, code = status.get("state"), status.get("reason"), end.exit_code
    if code is not None and code < 0:
        return f"killed by {signal_name(-code)}"
    if state == "done":
        return str(told or "no finite objective") if not code else f"exit status {code} at its end"
    if state in ("failed", "interrupted") and told:
        return str(told) if code is not None or end.lost == End.lost else f"{told}; {end.lost}"
    if code is None:
        return end.lost
    if code == 0:
        return "ended with status 0 but did not finish"
    said = _last_error(folder / CONSOLE)
    if said is not None and not status:
        return said
    return f"exit status {code}" + ("; its disk is full" if _is_full(folder) else "")


def signal_name(number: int) -> str:
    """The name of a signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _is_full(folder: Path) -> bool:
    with suppress(OSError):
        return shutil.disk_usage(folder).free < _LITTLE
    return False


def _is_interruption(code: int) -> bool:
    return code in EXIT_CODES.values()


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _last_error(path: Path) -> str | None:
    """The last line of a console that begins with ``error:``; a mistake found before the run."""
    lines = tail(path, _TAIL).splitlines()
    found = [line[len("error: ") :] for line in lines if line.startswith("error: ")]
    return found[-1] if found else None


def tail(path: Path, size: int) -> str:
    """The last ``size`` bytes of a file as text, empty if it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read(size).decode(errors="replace")
    except OSError:
        return ""
