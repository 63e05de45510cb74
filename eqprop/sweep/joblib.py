"""Jobs in workers of joblib's own executor, loky, on this machine."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

from joblib.externals.loky import ProcessPoolExecutor

from eqprop.sweep import marks
from eqprop.sweep.handles import Adopted, Delegated, Held, is_running, not_started
from eqprop.sweep.job import Handle, Job, Outcome
from eqprop.sweep.order import Terms, unheard
from eqprop.sweep.worker import work


class JoblibLauncher:
    """Hands each job to a worker process.

    A killed worker breaks its executor and with it everything that was handed to that; so each
    worker has an executor of its own, and takes nothing but its own job with it.

    Args:
        terms: what all jobs have in common.
        capacity: how many workers.
        idle: seconds after which a worker without a job ends.
    """

    def __init__(self, terms: Terms, capacity: int, folder: Path, idle: float = 300.0) -> None:
        self.terms = terms
        self.capacity = capacity
        self.idle = idle
        self._slots: list[_Slot] = []
        self._held = Held()

    def start(self, job: Job) -> Handle:
        """Hand a job to a free worker, or take over the process of it that still runs."""
        order = self._held.order(self.terms, job)
        if is_running(job):
            return Adopted(order)
        marks.forget_stop(job.folder)
        try:
            future = self._free_slot().submit(order)
        except Exception as error:  # no worker can be started
            return not_started(job, error)
        handle = Delegated(order, future, future.cancel)
        return self._held.keep(handle)

    def close(self) -> None:
        """End the workers; jobs that still run are asked to save and end."""
        self._held.stop()
        for slot in self._slots:
            slot.close()
        self._slots.clear()

    def _free_slot(self) -> _Slot:
        free = [slot for slot in self._slots if not slot.is_busy()]
        if not free:
            free = [_Slot(self.idle)]
            self._slots += free
        return free[0]


class _Slot:
    """One worker, replaced when it has died."""

    def __init__(self, idle: float) -> None:
        self.idle = idle
        self._executor: Any = None
        self._future: Future[Outcome] | None = None

    def is_busy(self) -> bool:
        return self._future is not None and not self._future.done()

    def submit(self, order: Any) -> Future[Outcome]:
        with unheard():
            if self._executor is None or self._died():
                self.close()
                self._executor = ProcessPoolExecutor(max_workers=1, timeout=self.idle)
            self._future = self._executor.submit(work, order)
        return self._future

    def close(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=not self.is_busy(), kill_workers=False)

    def _died(self) -> bool:
        future = self._future
        return future is not None and not future.cancelled() and future.exception() is not None
