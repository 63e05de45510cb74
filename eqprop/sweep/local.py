"""Jobs as processes on this machine: the default."""

from __future__ import annotations

from eqprop.sweep.handles import Held
from eqprop.sweep.job import Handle, Job
from eqprop.sweep.order import Terms
from eqprop.sweep.worker import take_up


class LocalLauncher:
    """Starts each job as a process of this machine.

    Args:
        terms: what all jobs have in common.
        capacity: how many jobs at a time.
    """

    def __init__(self, terms: Terms, capacity: int) -> None:
        self.terms = terms
        self.capacity = capacity
        self._held = Held()

    def start(self, job: Job) -> Handle:
        """Start a job, or take over the process of it that still runs."""
        return self._held.keep(take_up(self._held.order(self.terms, job)))

    def close(self) -> None:
        """Ask what still runs to save and end; nobody waits for it."""
        self._held.stop()
