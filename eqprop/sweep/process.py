"""Jobs as processes of this machine. They save and end with the process that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from eqprop.run.files import write_atomically
from eqprop.run.lock import is_alive
from eqprop.run.redact import redact
from eqprop.sweep.job import CONSOLE, STOPPED, Handle, Job, Outcome, State, judge, not_started

VISIBLE = "CUDA_VISIBLE_DEVICES"

_PAUSE = 0.1  # seconds between two looks at a job
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class JobProcess:
    """One job as one process, in a session of its own: a Ctrl-C at the terminal is for the sweep.

    Whoever holds it must ``poll``: the time limit is enforced there.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        job.folder.mkdir(parents=True, exist_ok=True)
        with open(job.folder / CONSOLE, "ab") as console:
            self._process = subprocess.Popen(
                job.arguments(),
                cwd=job.cwd,
                env={**os.environ, **job.env},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                preexec_fn=_ends_with(os.getpid()),
            )
        self._start = time.monotonic()
        self._asked: float | None = None
        self._verdict: tuple[State, str] | None = None
        self._outcome: Outcome | None = None

    def poll(self) -> Outcome | None:
        """Return how it ended, None while it runs."""
        if self._outcome is not None:
            return self._outcome
        now, limit, code = time.monotonic(), self.job.timeout, self._process.poll()
        if code is not None:
            self._outcome = self._judge(code)
        elif self._asked is not None and now - self._asked > self.job.grace:
            self._kill()
        elif limit is not None and now - self._start > limit:
            self.stop("failed", f"hung: no end after {limit:g} s (sweep.job_timeout)")
        return self._outcome

    def stop(self, state: State = "interrupted", reason: str = STOPPED) -> None:
        """Ask it to save and end; ``poll`` kills it when the time for that is over."""
        if self._asked is None and self._outcome is None:
            self._asked, self._verdict = time.monotonic(), (state, reason)
            self._process.send_signal(signal.SIGTERM)

    def _kill(self) -> None:
        """End the job and everything that it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _judge(self, code: int) -> Outcome:
        if code < 0 or self._asked is not None:
            self._kill()  # what it started and left behind
        _redact(self.job.folder / CONSOLE)
        seconds = round(time.monotonic() - self._start, 3)
        outcome = judge(self.job.folder, code, seconds, self._process.pid)
        if self._verdict is None or outcome.state == "done":
            return outcome
        return replace(outcome, state=self._verdict[0], reason=self._verdict[1])


class LocalLauncher:
    """Starts each job as a process of this machine: the default.

    ``gpus`` are those of which each job sees one, the least used; none: nothing is divided.
    """

    def __init__(self, capacity: int, folder: Path, gpus: tuple[str, ...] = ()) -> None:
        self.capacity = capacity
        self.gpus = gpus
        self._running: list[tuple[Handle, str]] = []

    def start(self, job: Job) -> Handle:
        """Start a job."""
        self._running = [pair for pair in self._running if pair[0].poll() is None]
        gpu = ""
        if self.gpus:
            used = Counter(name for _, name in self._running)
            gpu = min(self.gpus, key=lambda name: used[name])
            job = replace(job, env={**job.env, VISIBLE: gpu})
        handle = start(job)
        self._running.append((handle, gpu))
        return handle

    def close(self) -> None:
        """Ask what still runs to save and end; nobody waits for it."""
        for handle, _ in self._running:
            handle.stop()


def start(job: Job) -> JobProcess | Outcome:
    """Start a job as a child of this process, once no earlier process of it holds its folder.

    One whose sweep was killed may still be saving.
    """
    deadline = time.monotonic() + job.grace
    while is_alive(job.folder):
        if time.monotonic() > deadline:
            return Outcome("interrupted", reason="an earlier process of it still runs")
        time.sleep(_PAUSE)
    try:
        return JobProcess(job)
    except OSError as error:
        return not_started(error.strerror or error)


def run(job: Job, signals: Sequence[int] = ()) -> Outcome:
    """Run a job to its end in a launcher's worker, and return how it ended.

    It is asked to save and end by a Ctrl-C, or once ``signals`` is no longer empty.
    """
    handle = start(job)
    while True:
        try:
            if (outcome := handle.poll()) is not None:
                return outcome
            if signals:
                handle.stop()
            time.sleep(_PAUSE)
        except KeyboardInterrupt:
            handle.stop()


def _ends_with(parent: int) -> Callable[[], None] | None:
    """Return what a new process does to be sent SIGTERM when its parent has died, on Linux."""
    libc = _LIBC
    if libc is None:
        return None

    def ask_the_kernel() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            os.kill(os.getpid(), signal.SIGTERM)

    return ask_the_kernel


def _redact(path: Path) -> None:
    """Take secrets out of a console that nobody writes any more."""
    with suppress(OSError):
        text = path.read_text(encoding="utf-8", errors="replace")
        clean = "\n".join(redact(line) for line in text.split("\n"))
        if clean != text:
            write_atomically(path, clean.encode())
