"""Jobs through submitit: to Slurm, or as its processes on this machine."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import submitit

from eqprop.errors import ConfigError
from eqprop.files import write_atomically
from eqprop.sweep import marks, submission
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
        if outcome is not None:
            return Ended(outcome)
        if why is None:
            return None
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


class _Launcher:
    """What both have in common: each job is submitted by itself, a ticket stays in its folder."""

    cluster: str

    def __init__(self, terms: Terms, capacity: int, folder: Path, queue: Queue) -> None:
        self.terms = terms
        self.capacity = capacity
        self.queue = queue
        self.logs = folder / ".submitit"
        self._executor: Any = None
        self._submitted: list[Any] = []
        self._held = Held()

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
        return self.terms.order(job)

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
    """submitit's processes on this machine.

    Args:
        terms: what all jobs have in common.
        capacity: how many jobs at a time.
        folder: the sweep's, for submitit's own files.
        timeout_min: minutes until a job is preempted, to go on; None: none, or what follows from
            the terms.
        signal_delay_s: seconds that it has got to save.
        requeues: how many times.
    """

    cluster = "local"

    def __init__(
        self,
        terms: Terms,
        capacity: int,
        folder: Path,
        timeout_min: int | None = None,
        signal_delay_s: int = 60,
        requeues: int = 5,
    ) -> None:
        super().__init__(terms, capacity, folder, LocalQueue())
        self._executor = submitit.LocalExecutor(self.logs, max_num_timeout=requeues)
        minutes = timeout_min or minutes_for(terms) or _FOR_EVER
        self._executor.update_parameters(timeout_min=minutes, signal_delay_s=signal_delay_s)

    def close(self) -> None:
        submitted, deadline = list(self._submitted), time.monotonic() + 3
        super().close()
        for job in submitted:  # they are our children
            while not job.done() and time.monotonic() < deadline:
                time.sleep(0.05)

    def _order(self, job: Job) -> Order:
        # submitit hides the GPUs from what it has not been asked to give any
        order = super()._order(job)
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return replace(order, env={**order.env, "CUDA_VISIBLE_DEVICES": visible})


class SubmititSlurmLauncher(_Launcher):
    """Slurm.

    Args:
        terms: what all jobs have in common.
        capacity: how many jobs wait or run at a time.
        folder: the sweep's, for submitit's own files; every node must see it.
        timeout_min: minutes that Slurm gives a job; None: what follows from the terms, or a day.
        requeues: how many times a job whose time is over is queued again.
        options: more of what submitit takes.

    Raises:
        ConfigError: where there is no Slurm.
    """

    cluster = "slurm"

    def __init__(
        self,
        terms: Terms,
        capacity: int,
        folder: Path,
        timeout_min: int | None = None,
        requeues: int = 20,
        **options: Any,
    ) -> None:
        super().__init__(terms, capacity, folder, SlurmQueue())
        try:
            self._executor = submitit.SlurmExecutor(self.logs, max_num_timeout=requeues)
        except RuntimeError as error:
            raise ConfigError(
                "hydra/launcher=submitit_slurm: there is no Slurm here (no srun); start the sweep "
                "on a machine that submits jobs, or choose submitit_local"
            ) from error
        more: Mapping[str, Any] = options.pop("additional_parameters", {})
        given = {name: value for name, value in options.items() if value is not None}
        minutes = timeout_min or minutes_for(terms) or _A_DAY
        extra = {"requeue": True, **more}
        self._executor.update_parameters(time=minutes, additional_parameters=extra, **given)


def minutes_for(terms: Terms) -> int | None:
    """The minutes that a queue must give a job that ends itself in time; None if it need not."""
    if terms.timeout is None:
        return None
    return math.ceil((terms.timeout + terms.grace_seconds) / 60) + MARGIN
