"""Jobs as Ray's tasks, on a Ray of this machine or on a cluster."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from eqprop.config.signature import NotNegative, OptionalText, Positive
from eqprop.run.lock import is_alive
from eqprop.run.text import one_line
from eqprop.sweep.job import STOPPED, Job, Launcher, Outcome, judge
from eqprop.sweep.process import run

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports usage to its makers otherwise
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a task of no GPU hides none

import ray

_OBJECT_STORE = 100 * 2**20  # bytes; only jobs and outcomes go through it


class RayJob:
    """A job that Ray runs, or will run."""

    def __init__(self, job: Job, reference: Any) -> None:
        self.job = job
        self._reference = reference
        self._stopped = False

    def poll(self) -> Outcome | None:
        try:
            ready, _ = ray.wait([self._reference], timeout=0)
            return ray.get(self._reference) if ready else None
        except Exception as error:  # whatever has become of Ray or of the worker
            if is_alive(self.job.folder):  # it outlives its worker until it has saved
                return None
            if self._stopped:
                return Outcome("interrupted", reason=STOPPED)
            why = f"its worker died ({type(error).__name__}: {one_line(error, 100)})"
            return judge(self.job.folder, None, lost=why)

    def stop(self) -> None:
        self._stopped = True
        with suppress(Exception):
            ray.cancel(self._reference)


class RayLauncher(Launcher):
    """Hands each job to Ray as a task that Ray itself never retries.

    The keys are explained in conf/hydra/launcher/ray.yaml.
    """

    def __init__(
        self,
        capacity: int,
        folder: Path,
        address: OptionalText = None,
        cpus_per_job: Positive = 1.0,
        gpus_per_job: NotNegative = 0.0,
    ) -> None:
        super().__init__(capacity)
        own: dict[str, Any] = {"num_cpus": max(1, round(capacity * cpus_per_job + 0.5))}
        own |= {"object_store_memory": _OBJECT_STORE, "include_dashboard": False}
        where = own if address is None else {"address": address}
        ray.init(
            **where, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True
        )
        options = {"num_cpus": cpus_per_job, "num_gpus": gpus_per_job, "max_retries": 0}
        self._task = ray.remote(**options)(run)

    def submit(self, job: Job) -> RayJob:
        return RayJob(job, self._task.remote(job))

    def close(self) -> None:
        """Leave Ray, and end it if it is our own; jobs that still run save and end."""
        super().close()
        with suppress(Exception):
            ray.shutdown()
