"""Jobs as processes on this machine: the default."""

from __future__ import annotations

from eqprop.sweep.handles import Adopted, is_running, not_started
from eqprop.sweep.job import Handle, Job
from eqprop.sweep.order import Terms
from eqprop.sweep.process import JobProcess


class LocalLauncher:
    """Starts each job as a process of this machine.

    Args:
        terms: what all jobs have in common.
        capacity: how many jobs at a time.
    """

    def __init__(self, terms: Terms, capacity: int) -> None:
        self.terms = terms
        self.capacity = capacity
        self._running: list[Handle] = []

    def start(self, job: Job) -> Handle:
        """Start a job, or take over the process of it that still runs."""
        order = self.terms.order(job)
        handle: Handle
        try:
            handle = Adopted(order) if is_running(job) else JobProcess(order)
        except BlockingIOError:
            handle = Adopted(order)
        except OSError as error:
            return not_started(job, error.strerror or error)
        self._running = [other for other in self._running if other.poll() is None] + [handle]
        return handle

    def close(self) -> None:
        """Ask what still runs to save and end; nobody waits for it."""
        for handle in self._running:
            if handle.poll() is None:
                handle.stop()
        self._running.clear()
