"""One job as one process on this machine, in a session of its own: it outlives who started it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress

from eqprop.sweep import console_log, marks
from eqprop.sweep.job import Job, Outcome
from eqprop.sweep.order import Order
from eqprop.sweep.outcome import STOPPED, End, hung, judge


class JobProcess:
    """A running job. Whoever holds this must ``poll`` now and then: limits are enforced there.

    Raises:
        OSError: if it cannot be started: BlockingIOError if the job runs already.
    """

    def __init__(self, order: Order) -> None:
        self.job: Job = order.job
        self.order = order
        self._outcome: Outcome | None = None
        self._asked: float | None = None
        self._hung: str | None = None
        self._stopped: str | None = None
        self._process = _start(order)
        self._start = time.monotonic()

    def poll(self) -> Outcome | None:
        """Return how it ended, None while it runs."""
        if self._outcome is None:
            code = self._process.poll()
            if code is None:
                console_log.trim(self.job.folder)
                self._keep_limits()
            else:
                self._outcome = self._end(code)
        return self._outcome

    def stop(self) -> None:
        """Ask it to save and end; ``poll`` kills it when the time for that is over."""
        if self._asked is None:
            self._stopped = STOPPED
            self._ask(signal.SIGTERM)

    def preempt(self) -> None:
        """The same, of a job that is to go on later."""
        if self._asked is None:
            self._stopped = "preempted"
            self._ask(signal.SIGUSR2)

    def kill(self) -> None:
        """End the job and everything that it started, at once."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _ask(self, number: int) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)
        self._asked = time.monotonic()

    def _keep_limits(self) -> None:
        now, limit = time.monotonic(), self.order.timeout
        if self._asked is None and limit is not None and now - self._start > limit:
            self._hung = hung(limit)
            self._ask(signal.SIGTERM)
        elif self._asked is not None and now - self._asked > self.order.grace:
            self.kill()

    def _end(self, code: int) -> Outcome:
        if code < 0 or self._asked is not None:
            self.kill()  # what it started and left behind
        console_log.close(self.job.folder)
        seconds = time.monotonic() - self._start
        end = End(code, seconds, self._process.pid, self._hung, self._stopped)
        return judge(self.job, end)


def _start(order: Order) -> subprocess.Popen[bytes]:
    folder = order.job.folder
    folder.mkdir(parents=True, exist_ok=True)
    with marks.taken(folder) as lock:
        console = console_log.open_console(folder)
        try:
            process = subprocess.Popen(
                order.words(),
                cwd=order.cwd,
                env=order.environment(),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                pass_fds=[lock],
            )
        finally:
            os.close(console)
        marks.sign(lock, process.pid)
        return process
