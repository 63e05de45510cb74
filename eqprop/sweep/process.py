"""Jobs as processes of this machine. They save and end with the process that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from eqprop.run.files import write_atomically
from eqprop.run.lock import is_alive
from eqprop.run.redact import redact
from eqprop.sweep.job import CONSOLE, STOPPED, Handle, Job, Launcher, Outcome, judge

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
        parent = os.getpid()
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
                preexec_fn=lambda: _end_with(parent),
            )
        self._start = time.monotonic()
        self._asked: float | None = None
        self._verdict: dict[str, Any] = {}
        self._outcome: Outcome | None = None

    def poll(self) -> Outcome | None:
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

    def stop(self, state: str = "interrupted", reason: str = STOPPED) -> None:
        """Ask it to save and end; ``poll`` kills it when the time for that is over."""
        if self._asked is None and self._outcome is None:
            self._asked, self._verdict = time.monotonic(), {"state": state, "reason": reason}
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
        return outcome if outcome.state == "done" else replace(outcome, **self._verdict)


class LocalLauncher(Launcher):
    """Starts each job as a process of this machine: the default.

    ``gpus`` are those of which each job sees one, the least used; none: nothing is divided.
    """

    def __init__(self, capacity: int, folder: Path, gpus: tuple[str, ...] = ()) -> None:
        super().__init__(capacity)
        self.gpus = gpus

    def submit(self, job: Job) -> Handle:
        used = [one.job.env.get(VISIBLE) for one in self.handles if one.poll() is None]
        gpu = min(self.gpus, key=used.count, default=None)
        return start(job if gpu is None else replace(job, env={**job.env, VISIBLE: gpu}))


def start(job: Job) -> JobProcess | Outcome:
    """Start a job as a child of this process, once no earlier process of it holds its folder.

    One whose sweep was killed may still be saving.
    """
    deadline = time.monotonic() + job.grace
    while is_alive(job.folder):
        if time.monotonic() > deadline:
            return Outcome("interrupted", reason="an earlier process of it still runs")
        time.sleep(_PAUSE)
    return JobProcess(job)


def run(job: Job, signals: Sequence[int] = ()) -> Outcome:
    """Run a job to its end in a launcher's worker, and return how it ended.

    It is asked to save and end by a Ctrl-C, or once ``signals`` is no longer empty.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a sweep begun in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    handle, outcome = start(job), None
    try:
        while outcome is None:
            try:
                if (outcome := handle.poll()) is None:
                    if signals:
                        handle.stop()
                    time.sleep(_PAUSE)
            except KeyboardInterrupt:
                handle.stop()
    finally:
        if outcome is None:  # a second Ctrl-C, while the first was passed on
            handle.stop()
    return outcome


def _end_with(parent: int) -> None:
    """In a new process: have the kernel send it SIGTERM when its parent dies, on Linux."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            os.kill(os.getpid(), signal.SIGTERM)


def _redact(path: Path) -> None:
    """Take secrets out of a console that nobody writes any more."""
    with suppress(OSError):
        text = path.read_text(encoding="utf-8", errors="replace")
        clean = "\n".join(redact(line) for line in text.split("\n"))
        if clean != text:
            write_atomically(path, clean.encode())
