"""Jobs submitted to Slurm by submitit; every node must see the sweep's folder."""

from __future__ import annotations

import getpass
import hashlib
import json
import math
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import submitit

from eqprop.config.fields import (
    Count,
    Mapping,
    NotNegativeCount,
    OptionalCount,
    OptionalPositive,
    OptionalText,
    Text,
    Texts,
)
from eqprop.run.errors import ConfigError
from eqprop.run.files import write_atomically
from eqprop.sweep.job import CONSOLE, STOPPED, Handle, Job, Outcome, judge, not_started
from eqprop.sweep.process import run

OUTCOME = ".outcome.json"
"""In a job's folder: how it ended, as the node saw it."""

_EVERY = 2.0  # seconds between two questions to Slurm
_PATIENCE = 10.0  # seconds in which a shared file system shows what a node has written
_MARGIN = 5  # minutes that Slurm gives a job beyond sweep.job_timeout, which ends it in good order
_A_DAY = 24 * 60
_OVER = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT", ""),  # the last one: Slurm has forgotten the job
)


def run_on_node(job: Job) -> None:
    """Run a job, save it when Slurm says so, and leave its outcome in its folder.

    Slurm sends SIGUSR2 when the job's time is almost over, SIGTERM when it is preempted or
    cancelled. A job that Slurm itself queues again comes here again, and goes on in its folder.
    """
    signals: list[int] = []
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, lambda number, frame: signals.append(number))
    (job.folder / OUTCOME).unlink(missing_ok=True)
    outcome = run(job, signals)
    write_atomically(job.folder / OUTCOME, json.dumps(asdict(outcome)).encode())
    sys.exit(outcome.state != "done")  # so that Slurm knows, too


class SlurmJob:
    """A job in Slurm's hands. One that is preempted, or out of time, is submitted again."""

    def __init__(self, launcher: SlurmLauncher, job: Job) -> None:
        self.launcher = launcher
        self.job = job
        self.number = launcher.submit(job)
        self._requeues = launcher.requeues
        self._stopped = False
        self._gone: float | None = None
        self._outcome: Outcome | None = None

    def poll(self) -> Outcome | None:
        """Return how it ended, None while it waits or runs."""
        if self._outcome is None:
            self._outcome = self._look()
        return self._outcome

    def stop(self) -> None:
        """Ask it to save and end, or never to begin."""
        self._stopped = True
        _slurm("scancel", self.number)

    def _look(self) -> Outcome | None:
        state = self.launcher.state(self.number)
        if state not in _OVER:
            self._gone = None
            return None
        outcome = None
        with suppress(OSError, ValueError, TypeError):
            outcome = Outcome(**json.loads((self.job.folder / OUTCOME).read_bytes()))
        if outcome is None:
            self._gone = self._gone or time.monotonic()
            if time.monotonic() - self._gone < _PATIENCE:
                return None
            outcome = judge(self.job.folder, None, lost=f"Slurm says {state or 'nothing of it'}")
        if self._stopped and outcome.state != "done":
            return replace(outcome, state="interrupted", reason=STOPPED)
        if outcome.state == "interrupted" and state != "CANCELLED" and self._requeues:
            self._requeues, self._gone = self._requeues - 1, None
            with suppress(Exception):  # as in ``start``; then it stays interrupted
                self.number = self.launcher.submit(self.job)
                return None
        return outcome


class SlurmLauncher:
    """Submits each job by itself. The keys are explained in conf/hydra/launcher."""

    def __init__(
        self,
        capacity: int,
        folder: Path,
        max_jobs: OptionalCount = None,
        timeout_min: OptionalCount = None,
        signal_delay_s: Count = 120,
        requeues: NotNegativeCount = 20,
        name: Text = "eqprop",
        partition: OptionalText = None,
        account: OptionalText = None,
        qos: OptionalText = None,
        constraint: OptionalText = None,
        cpus_per_task: Count = 2,
        gpus_per_node: OptionalCount = None,
        mem_gb: OptionalPositive = None,
        setup: Texts = [],  # noqa: B006
        additional_parameters: Mapping = {},  # noqa: B006
    ) -> None:
        self.capacity = max_jobs or (capacity if capacity > 1 else 16)
        self.requeues = requeues
        self.name = name
        self.minutes = timeout_min
        self._handles: list[SlurmJob] = []
        self._states: dict[str, str] | None = None
        self._asked = -math.inf
        try:
            self._executor = submitit.SlurmExecutor(folder / ".submitit")
        except RuntimeError as error:
            raise ConfigError(
                "hydra/launcher=submitit_slurm: there is no Slurm here (no srun); start the sweep "
                "on a machine that submits jobs, or leave hydra/launcher out"
            ) from error
        self._executor.update_parameters(
            partition=partition,
            account=account,
            qos=qos,
            constraint=constraint,
            cpus_per_task=cpus_per_task,
            gpus_per_node=gpus_per_node,
            mem=None if mem_gb is None else f"{round(mem_gb * 1024)}MB",
            signal_delay_s=signal_delay_s,
            setup=setup,
            additional_parameters={"requeue": True, **additional_parameters},
        )

    def start(self, job: Job) -> Handle:
        """Submit a job."""
        try:
            self._handles.append(SlurmJob(self, job))
        except Exception as error:  # whatever sbatch does not like
            return not_started(error)
        return self._handles[-1]

    def close(self) -> None:
        """Cancel what still waits or runs; jobs that run save."""
        for handle in self._handles:
            if handle.poll() is None:
                handle.stop()

    def submit(self, job: Job) -> str:
        """Hand a job to Slurm, behind any earlier submission of it; returns Slurm's number."""
        place = hashlib.sha256(str(job.folder).encode()).hexdigest()[:8]
        name = f"{self.name}-{job.number}-{place}"
        if (job.folder / CONSOLE).exists():  # its sweep may have been killed while it ran
            _slurm("scancel", f"--user={getpass.getuser()}", f"--name={name}")
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / OUTCOME).unlink(missing_ok=True)
        needed = None if job.timeout is None else math.ceil((job.timeout + job.grace) / 60)
        minutes = self.minutes or (_A_DAY if needed is None else needed + _MARGIN)
        self._executor.update_parameters(job_name=name, dependency="singleton", time=minutes)
        return str(self._executor.submit(run_on_node, job).job_id)

    def state(self, number: str) -> str | None:
        """Return what Slurm says of a job, empty if it has forgotten it; None: no answer."""
        if time.monotonic() - self._asked >= _EVERY:
            answer = _slurm("squeue", "--me", "--noheader", "--states=all", "--format=%A %T")
            lines = None if answer is None else answer.splitlines()
            self._states = None if lines is None else dict(line.split() for line in lines)
            self._asked = time.monotonic()
        return None if self._states is None else self._states.get(number, "")


def _slurm(*command: str) -> str | None:
    """Return what a command of Slurm's answers, None if it fails: a controller may be restarted."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
