"""What a queue says of the jobs that were given to it: Slurm's, or submitit's processes here."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path
from typing import Protocol

EVERY = 2.0  # seconds between two questions to Slurm
PATIENCE = 30.0
"""Seconds that a job may be gone from the queue before its folder must say how it ended."""

_ALIVE = (
    *("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "COMPLETING", "STAGE_OUT"),
    *("REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
    *("RESIZING", "SIGNALING"),
)


class Queue(Protocol):
    """Tells what has become of a job."""

    def gone(self, number: str) -> str | None:
        """Return why the job is no longer there, None while it is or nobody knows."""
        ...

    def has(self, number: str) -> bool:
        """Whether the job is there now; waits for the answer."""
        ...

    def cancel(self, number: str) -> None:
        """Take back a job that has not begun."""
        ...


class LocalQueue:
    """The processes that submitit starts on this machine, by their ids."""

    def gone(self, number: str) -> str | None:
        try:
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
            command = Path(f"/proc/{number}/cmdline").read_bytes()
        except (OSError, IndexError):
            return "its controller has ended"
        alive = state not in "ZX" and b"submitit" in command
        return None if alive else "its controller has ended"

    def has(self, number: str) -> bool:
        return self.gone(number) is None

    def cancel(self, number: str) -> None:
        """They begin at once."""


class SlurmQueue:
    """Slurm, asked for all jobs at a time, in a thread: it may take its time to answer."""

    def __init__(self, every: float = EVERY, patience: float = PATIENCE) -> None:
        self.every = every
        self.patience = patience
        self._states: dict[str, str] = {}
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._thread: threading.Thread | None = None
        self._answers = 0
        self._since: dict[str, float] = {}

    def gone(self, number: str) -> str | None:
        self._ask()
        with self._lock:
            state, answers = self._states.get(number), self._answers
        if answers == 0 or state in _ALIVE:
            self._since.pop(number, None)
            return None
        since = self._since.setdefault(number, time.monotonic())
        if time.monotonic() - since < self.patience:
            return None
        return f"Slurm says {state}" if state else "Slurm no longer knows it"

    def has(self, number: str) -> bool:
        self._look()
        with self._lock:
            return self._states.get(number) in _ALIVE

    def cancel(self, number: str) -> None:
        command = ["scancel", "--state=PENDING", number]
        threading.Thread(target=_run, args=(command,), daemon=True).start()

    def _ask(self) -> None:
        waiting = self._thread is not None and self._thread.is_alive()
        if waiting or time.monotonic() - self._asked < self.every:
            return
        self._asked = time.monotonic()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        answer = _run(["squeue", "--me", "--noheader", "--states=all", "--format=%A %T"])
        if answer is None:
            return  # a controller that is restarted is no reason to give a job up
        pairs = [line.split() for line in answer.splitlines()]
        with self._lock:
            self._states = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
            self._answers += 1


def _run(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
