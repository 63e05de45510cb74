"""Jobs through submitit: to Slurm, or as its processes on this machine."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import submitit

from eqprop.run.errors import ConfigError
from eqprop.run.files import write_atomically
from eqprop.sweep import gpus, marks, submission
from eqprop.sweep.handles import Adopted, Ended, Held, is_running, not_started
from eqprop.sweep.job import Handle, Job, Outcome
from eqprop.sweep.order import Order, Terms, unheard
from eqprop.sweep.outcome import STOPPED, End, judge
from eqprop.sweep.queue import LocalQueue, Queue, SlurmQueue
from eqprop.sweep.submission import Submission

TICKET = ".submitted.json"
"""In a job's folder: where it was submitted to, for a sweep that is started again."""

MARGIN = 5
"""Minutes that a cluster gives a job beyond ``sweep.job_timeout``, which ends it in good order."""

_A_DAY = 24 * 60
_FOR_EVER = 10 * 365 * _A_DAY


class SubmittedHandle:
    """A job that was submitted. How it ended lies in its folder."""

    def __init__(self, order: Order, number: str, queue: Queue) -> None:
        self.job: Job = order.job
        self.order = order
        self.number = number
        self.queue = queue
        self._stopped = False
        self._begin = time.time()
        self._heir: Adopted | Ended | None = None

    def poll(self) -> Outcome | None:
        """Return how it ended, None while it waits or runs."""
        if self._heir is None:
            self._heir = self._inherit()
        return None if self._heir is None else self._heir.poll()

    def stop(self) -> None:
        """Ask it to save and end, or never to begin."""
        self._stopped = True
        marks.ask_to_stop(self.job.folder)
        self.queue.cancel(self.number)
        if self._heir is not None:
            self._heir.stop()

    def _inherit(self) -> Adopted | Ended | None:
        why = self.queue.gone(self.number)
        outcome = submission.read(self.job)  # after the question: it is written before the end
        if outcome is not None and (self._stopped or why or outcome.state != "interrupted"):
            return Ended(outcome)
        if why is None:
            return None  # where it was interrupted, Slurm may have queued it again
        if is_running(self.job):  # it outlived what watched over it
            heir = Adopted(self.order, why)
            if self._stopped:
                heir.stop()
            return heir
        end = End(
            None,
            time.time() - self._begin,
            stopped=STOPPED if self._stopped else None,
            lost=why,
        )
        return Ended(judge(self.job, end))


class _Launcher(ABC):
    """What both have in common: each job is submitted by itself, a ticket stays in its folder.

    Args:
        terms: what all jobs have in common.
        capacity: how many jobs wait or run at a time.
        folder: the sweep's, for submitit's own files.
        timeout_min: minutes that the queue gives a job; None: what follows from the terms, or
            ``minutes``.
        requeues: how many times a job whose time is over goes on.
        options: more of what submitit takes.
    """

    cluster: ClassVar[str]
    executor: ClassVar[type[Any]]
    minutes: ClassVar[int]

    def __init__(
        self,
        terms: Terms,
        capacity: int,
        folder: Path,
        timeout_min: int | None = None,
        requeues: int = 5,
        **options: Any,
    ) -> None:
        self.terms = terms
        self.capacity = capacity
        self.queue = self._queue()
        self.logs = folder / ".submitit"
        self._submitted: list[Any] = []
        self._held = Held()
        self._executor = self.executor(self.logs, max_num_timeout=requeues)
        minutes = timeout_min or minutes_for(terms) or self.minutes
        self._executor.update_parameters(**self._parameters(minutes, options))

    @abstractmethod
    def _queue(self) -> Queue:
        """Who tells what has become of a job."""

    @abstractmethod
    def _parameters(self, minutes: int, options: dict[str, Any]) -> dict[str, Any]:
        """What the executor calls them."""

    def start(self, job: Job) -> Handle:
        """Submit a job, or take over what an earlier sweep submitted and is still there."""
        order = self._order(job)
        number = self._ticket(job)
        if number is not None and submission.read(job) is None and self.queue.has(number):
            handle: Handle = SubmittedHandle(order, number, self.queue)
        elif is_running(job):
            return Adopted(order)
        else:
            try:
                handle = self._submit(order)
            except Exception as error:  # whatever sbatch does not like
                return not_started(job, error)
        return self._held.keep(handle)

    def close(self) -> None:
        """Let go; jobs that still wait or run are asked to save and end."""
        self._held.stop()
        self._submitted.clear()

    def _order(self, job: Job) -> Order:
        return self._held.order(self.terms, job)

    def _submit(self, order: Order) -> SubmittedHandle:
        folder = order.job.folder
        folder.mkdir(parents=True, exist_ok=True)
        submission.forget(folder)
        with unheard():
            submitted = self._executor.submit(Submission(order))
        self._submitted.append(submitted)
        number = str(submitted.job_id)
        ticket = {"cluster": self.cluster, "id": number, "host": socket.gethostname()}
        write_atomically(folder / TICKET, json.dumps(ticket).encode())
        return SubmittedHandle(order, number, self.queue)

    def _ticket(self, job: Job) -> str | None:
        try:
            ticket = json.loads((job.folder / TICKET).read_bytes())
            here = self.cluster == "slurm" or ticket["host"] == socket.gethostname()
            return str(ticket["id"]) if here and ticket["cluster"] == self.cluster else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


class SubmititLocalLauncher(_Launcher):
    """submitit's processes on this machine, ``capacity`` at a time.

    ``signal_delay_s`` before its time is over a job is told to save.
    """

    cluster = "local"
    executor = submitit.LocalExecutor
    minutes = _FOR_EVER

    def _queue(self) -> Queue:
        return LocalQueue()

    def _parameters(self, minutes: int, options: dict[str, Any]) -> dict[str, Any]:
        return {"timeout_min": minutes, **options}

    def close(self) -> None:
        submitted, deadline = list(self._submitted), time.monotonic() + 3
        super().close()
        for job in submitted:  # they are our children
            while not job.done() and time.monotonic() < deadline:
                time.sleep(0.05)

    def _order(self, job: Job) -> Order:
        # submitit hides the GPUs from what it has not been asked to give any
        order = super()._order(job)
        return replace(order, env={gpus.VISIBLE: os.environ.get(gpus.VISIBLE), **order.env})


class SubmititSlurmLauncher(_Launcher):
    """Slurm, of which every node must see the sweep's folder.

    Raises:
        ConfigError: where there is no Slurm.
    """

    cluster = "slurm"
    executor = submitit.SlurmExecutor
    minutes = _A_DAY

    def __init__(self, terms: Terms, capacity: int, folder: Path, **options: Any) -> None:
        try:
            super().__init__(terms, capacity, folder, **options)
        except RuntimeError as error:
            raise ConfigError(
                "hydra/launcher=submitit_slurm: there is no Slurm here (no srun); start the sweep "
                "on a machine that submits jobs, or choose submitit_local"
            ) from error

    def _queue(self) -> Queue:
        return SlurmQueue()

    def _parameters(self, minutes: int, options: dict[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in options.items() if value is not None}
        extra = {"requeue": True, **given.pop("additional_parameters", {})}
        return {"time": minutes, "additional_parameters": extra, **given}


def minutes_for(terms: Terms) -> int | None:
    """The minutes that a queue must give a job that ends itself in time; None if it need not."""
    if terms.timeout is None:
        return None
    return math.ceil((terms.timeout + terms.grace_seconds) / 60) + MARGIN
