"""A running job held to the limits of its order, whoever started it."""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod

from eqprop.sweep import console_log
from eqprop.sweep.job import Job, Outcome
from eqprop.sweep.order import Order
from eqprop.sweep.outcome import STOPPED, End, hung, judge


class Limited(ABC):
    """The handle of a job on this machine. Who holds it must ``poll``: limits are enforced there.

    Args:
        order: the job.
        age: seconds that it has run already.
    """

    def __init__(self, order: Order, age: float = 0.0) -> None:
        self.job: Job = order.job
        self.order = order
        self._start = time.monotonic() - age
        self._asked: float | None = None
        self._hung: str | None = None
        self._stopped: str | None = None
        self._outcome: Outcome | None = None

    def poll(self) -> Outcome | None:
        """Return how it ended, None while it runs."""
        if self._outcome is None:
            end = self._end()
            if end is None:
                console_log.trim(self.job.folder)
                self._keep_limits()
            else:
                console_log.close(self.job.folder)
                self._outcome = judge(self.job, end)
        return self._outcome

    def stop(self) -> None:
        """Ask it to save and end; ``poll`` kills it when the time for that is over."""
        self._ask(signal.SIGTERM, STOPPED)

    def preempt(self) -> None:
        """The same, of a job that is to go on later."""
        self._ask(signal.SIGUSR2, "preempted")

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self._start

    @abstractmethod
    def _end(self) -> End | None:
        """What is known of its end, None while it runs."""

    @abstractmethod
    def _send(self, number: int) -> None:
        """Send it a signal; SIGKILL goes to all that it has started, too."""

    def _ask(self, number: int, stopped: str | None) -> None:
        if self._asked is None:
            self._asked, self._stopped = time.monotonic(), stopped
            self._send(number)

    def _keep_limits(self) -> None:
        limit = self.order.timeout
        if self._asked is not None:
            if time.monotonic() - self._asked > self.order.grace:
                self._send(signal.SIGKILL)
        elif limit is not None and self.seconds > limit:
            self._hung = hung(limit)
            self._ask(signal.SIGTERM, None)
