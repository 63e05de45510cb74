"""Handles of jobs that this process did not start itself, or could not."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace

from eqprop.run.files import one_line
from eqprop.run.lock import is_alive, read_status
from eqprop.sweep import gpus, marks
from eqprop.sweep.job import Handle, Job, Outcome
from eqprop.sweep.limits import Limited
from eqprop.sweep.order import Order, Terms
from eqprop.sweep.outcome import STOPPED, End


class Ended:
    """A job that has ended already."""

    def __init__(self, outcome: Outcome) -> None:
        self.job: Job = outcome.job
        self._outcome = outcome

    def poll(self) -> Outcome:
        """Return how it ended."""
        return self._outcome

    def stop(self) -> None:
        """Nothing is left to stop."""


def not_started(job: Job, why: object) -> Ended:
    """A job that could not be started."""
    reason = f"could not be started: {one_line(why)}"
    return Ended(Outcome(job, "failed", None, reason, None, 0.0))


class Adopted(Limited):
    """A job that another process started and that still runs: nobody will see its exit status.

    Args:
        order: the job.
        lost: the reason to give if it ends without a word.
    """

    def __init__(self, order: Order, lost: str | None = None) -> None:
        self._lost = lost or End.lost
        self._pid = _pid(order.job)
        now = time.time()
        began = float(marks.owner(order.job.folder).get("start") or now)
        super().__init__(order, age=max(0.0, now - began))

    def _end(self) -> End | None:
        if is_running(self.job):
            self._pid = _pid(self.job) or self._pid
            return None
        return End(None, self.seconds, self._pid, self._hung, self._stopped, self._lost)

    def _send(self, number: int) -> None:
        pid = marks.local_pid(self.job.folder)
        with suppress(ProcessLookupError, PermissionError):
            if pid is None:  # started by hand
                pid = _pid(self.job)
                if pid is not None:
                    os.kill(pid, number)
            elif number == signal.SIGKILL:
                os.killpg(pid, number)  # it leads its session
            else:
                os.kill(pid, number)


class Delegated:
    """A job in the hands of a worker of a pool, which returns its outcome.

    A job whose worker dies is waited for by ourselves, if it is still there.

    Args:
        order: the job.
        future: what the worker will return.
        cancel: takes the job back if no worker has begun with it.
    """

    def __init__(
        self,
        order: Order,
        future: Future[Outcome],
        cancel: Callable[[], object] = lambda: None,
    ) -> None:
        self.job: Job = order.job
        self.order = order
        self._future = future
        self._cancel = cancel
        self._heir: Adopted | Ended | None = None
        self._stopped = False

    def poll(self) -> Outcome | None:
        """Return how it ended, None while it runs or waits for a worker."""
        if self._heir is None and self._future.done():
            self._heir = self._inherit()
        return None if self._heir is None else self._heir.poll()

    def stop(self) -> None:
        """Ask it to save and end, or never to begin."""
        self._stopped = True
        if self._heir is not None:
            self._heir.stop()
        else:
            marks.ask_to_stop(self.job.folder)
            self._cancel()

    def _inherit(self) -> Adopted | Ended:
        try:
            return Ended(self._future.result(timeout=0))
        except BaseException as error:  # a pool's errors are anybody's
            if self._future.cancelled():
                return Ended(Outcome(self.job, "interrupted", None, STOPPED, None, 0.0))
            name = type(error).__name__
            heir = Adopted(self.order, f"its worker died ({name}: {one_line(error, 100)})")
            if self._stopped:
                heir.stop()
            return heir


class Held:
    """The jobs that a launcher has started and that have not ended."""

    def __init__(self) -> None:
        self._handles: list[Handle] = []
        self._gpus: dict[int, str] = {}

    def order(self, terms: Terms, job: Job) -> Order:
        """The order for a job; where GPUs are divided, it sees the one that is least in use."""
        order = terms.order(job)
        if not terms.gpus:
            return order
        running = [handle.job.number for handle in self._handles if handle.poll() is None]
        used = Counter(self._gpus[number] for number in running if number in self._gpus)
        gpu = self._gpus[job.number] = min(terms.gpus, key=lambda name: used[name])
        return replace(order, env={**order.env, gpus.VISIBLE: gpu})

    def keep(self, handle: Handle) -> Handle:
        """Hold one more; returns it."""
        self._handles = [other for other in self._handles if other.poll() is None] + [handle]
        return handle

    def stop(self) -> None:
        """Ask those that still run to save and end; nobody waits for them."""
        for handle in self._handles:
            if handle.poll() is None:
                handle.stop()
        self._handles.clear()


def is_running(job: Job) -> bool:
    """Whether a process runs the job, started by a launcher or by hand."""
    return marks.is_running(job.folder) or is_alive(job.folder)


def _pid(job: Job) -> int | None:
    found = marks.local_pid(job.folder) or (read_status(job.folder) or {}).get("pid")
    return found if isinstance(found, int) else None
