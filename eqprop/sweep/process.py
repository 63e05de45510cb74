"""One job as one process on this machine, in a session of its own: it outlives who started it."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress

from eqprop.sweep import console_log, marks
from eqprop.sweep.limits import Limited
from eqprop.sweep.order import Order
from eqprop.sweep.outcome import End


class JobProcess(Limited):
    """A job that this process starts.

    Raises:
        OSError: if it cannot be started: BlockingIOError if the job runs already.
    """

    def __init__(self, order: Order) -> None:
        self._process = _start(order)
        super().__init__(order)

    def kill(self) -> None:
        """End the job and everything that it started, at once."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _send(self, number: int) -> None:
        if number == signal.SIGKILL:
            self.kill()
        else:
            self._process.send_signal(number)  # none if it has ended

    def _end(self) -> End | None:
        code = self._process.poll()
        if code is None:
            return None
        if code < 0 or self._asked is not None:
            self.kill()  # what it started and left behind
        return End(code, self.seconds, self._process.pid, self._hung, self._stopped)


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
