"""Jobs submitted to Slurm by submitit; every node must see the sweep's folder."""

from __future__ import annotations

import getpass
import hashlib
import logging
import math
import signal
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import submitit
from submitit.slurm.slurm import SlurmInfoWatcher

from eqprop.config.signature import (
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
from eqprop.run.signals import EXIT_CODES
from eqprop.sweep.job import CONSOLE, STOPPED, Job, Launcher, Outcome, judge
from eqprop.sweep.process import run

_MARGIN = 5  # minutes that Slurm gives a job beyond sweep.job_timeout, which ends it in good order
_A_DAY = 24 * 60

logging.getLogger("submitit").setLevel(logging.ERROR)  # a controller may be restarted


class Queue(SlurmInfoWatcher):  # type: ignore[misc]
    """Asks ``squeue``, which every cluster has; submitit asks an accounting that some lack."""

    def _make_command(self) -> list[str]:
        return ["squeue", "--me", "--noheader", "--states=all", "--format=%A %T"]

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        """Return the state of each job; Slurm forgets one some minutes after its end."""
        text = string if isinstance(string, str) else string.decode()
        states = dict(line.split() for line in text.splitlines())
        return {number: {"State": states.get(number, "GONE")} for number in self._registered}


submitit.SlurmJob.watcher = Queue(delay_s=2)


def run_on_node(job: Job) -> Outcome:
    """Run a job, and save it when Slurm says so.

    Slurm sends SIGUSR2 when the job's time is almost over, SIGTERM when it is preempted or
    cancelled. A job that Slurm itself queues again comes here again, and goes on in its folder.
    """
    signals: list[int] = []
    for number in EXIT_CODES.keys() - {signal.SIGINT}:
        signal.signal(number, lambda number, frame: signals.append(number))
    submitit.JobEnvironment().paths.result_pickle.unlink(missing_ok=True)
    return run(job, signals)


class SlurmJob:
    """A job in Slurm's hands. One that is preempted, or out of time, is submitted again."""

    def __init__(self, launcher: SlurmLauncher, job: Job) -> None:
        self.launcher = launcher
        self.job = job
        self.submitted = launcher.sbatch(job)
        self._requeues = launcher.requeues
        self._stopped = False
        self._outcome: Outcome | None = None

    def poll(self) -> Outcome | None:
        number, watcher = self.submitted.job_id, self.submitted.watcher
        if self._outcome is None and watcher.is_done(number):
            self._outcome = self._end(watcher.get_state(number, mode="cache"))
        return self._outcome

    def stop(self) -> None:
        self._stopped = True
        self.submitted.cancel(check=False)

    def _end(self, state: str) -> Outcome | None:
        """Return how it ended, None if it has been submitted again."""
        try:
            outcome = self.submitted.result()
        except Exception:  # its worker died
            outcome = judge(self.job.folder, None, lost=f"Slurm says {state}")
        if self._stopped and outcome.state != "done":
            return replace(outcome, state="interrupted", reason=STOPPED)
        if outcome.state == "interrupted" and state != "CANCELLED" and self._requeues:
            self._requeues -= 1
            with suppress(Exception):  # as in ``start``; then it stays interrupted
                self.submitted = self.launcher.sbatch(self.job)
                return None
        return outcome


class SlurmLauncher(Launcher):
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
        super().__init__(max_jobs or (capacity if capacity > 1 else 16))
        self.requeues = requeues
        self.name = name
        self.minutes = timeout_min
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

    def submit(self, job: Job) -> SlurmJob:
        return SlurmJob(self, job)

    def sbatch(self, job: Job) -> submitit.Job[Outcome]:
        """Hand a job to Slurm, behind any earlier submission of it."""
        place = hashlib.sha256(str(job.folder).encode()).hexdigest()[:8]
        name = f"{self.name}-{job.number}-{place}"
        if (job.folder / CONSOLE).exists():  # its sweep may have been killed while it ran
            subprocess.run(["scancel", f"--user={getpass.getuser()}", f"--name={name}"])
        needed = None if job.timeout is None else math.ceil((job.timeout + job.grace) / 60)
        minutes = self.minutes or (_A_DAY if needed is None else needed + _MARGIN)
        self._executor.update_parameters(job_name=name, dependency="singleton", time=minutes)
        return self._executor.submit(run_on_node, job)
