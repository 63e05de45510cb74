"""Jobs as Ray's tasks, on a Ray of this machine or on a cluster."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from eqprop.sweep import marks
from eqprop.sweep.handles import Adopted, Delegated, Held, is_running, not_started
from eqprop.sweep.job import Handle, Job
from eqprop.sweep.order import Terms
from eqprop.sweep.worker import work

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray tells its makers of us otherwise
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a task of no GPU hides none

import ray

OBJECT_STORE = 100 * 2**20
"""Bytes of shared memory for a Ray of our own: nothing but orders and outcomes goes through it."""


class RayLauncher:
    """Hands each job to Ray as a task that is never tried again: that is for the sweep to decide.

    Args:
        terms: what all jobs have in common.
        capacity: how many jobs at a time.
        address: of a cluster, as ``ray.init`` takes it; None starts a Ray of this machine.
        cpus_per_job: processors that Ray reserves for each job.
        gpus_per_job: GPUs that Ray reserves for each job.

    Raises:
        ConnectionError: if there is no cluster at ``address``.
    """

    def __init__(
        self,
        terms: Terms,
        capacity: int,
        folder: Path,
        address: str | None = None,
        cpus_per_job: float = 1.0,
        gpus_per_job: float = 0.0,
    ) -> None:
        self.terms = terms
        self.capacity = capacity
        own: dict[str, Any] = {"num_cpus": max(1, round(capacity * cpus_per_job + 0.5))}
        own |= {"object_store_memory": OBJECT_STORE, "include_dashboard": False}
        # its children are told to ignore Ctrl-C by Ray itself
        ray.init(
            **({"address": address} if address is not None else own),
            log_to_driver=False,
            logging_level=logging.ERROR,
            ignore_reinit_error=True,
        )
        options = {"num_cpus": cpus_per_job, "num_gpus": gpus_per_job, "max_retries": 0}
        self._task = ray.remote(**options)(work)
        self._held = Held()

    def start(self, job: Job) -> Handle:
        """Hand a job to Ray, or take over the process of it that still runs."""
        order = self.terms.order(job)
        if is_running(job):
            return Adopted(order)
        marks.forget_stop(job.folder)
        try:
            handle = Delegated(order, self._task.remote(order).future())
        except Exception as error:  # Ray itself is gone
            return not_started(job, error)
        return self._held.keep(handle)

    def close(self) -> None:
        """Leave Ray, and end it if it is our own; jobs that still run are asked to end."""
        self._held.stop()
        with suppress(Exception):
            ray.shutdown()
