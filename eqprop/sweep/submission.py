"""What submitit runs on a node: one job, its outcome left in the folder, requeued if preempted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any

from submitit.core.utils import DelayedSubmission, UncompletedJobError
from submitit.helpers import Checkpointable

from eqprop.run.files import one_line, write_atomically
from eqprop.sweep import marks
from eqprop.sweep.job import Job, Outcome
from eqprop.sweep.order import Order
from eqprop.sweep.worker import work

OUTCOME = ".outcome.json"


class JobFailedError(Exception):
    """Ends the submission with a status that is not 0, so that the cluster knows that it failed."""


class Submission(Checkpointable):  # type: ignore[misc]
    """Runs one job. Called by submitit, with submitit's own handler of SIGUSR2 installed.

    SIGUSR2 (its time is over, or it must make room) and SIGTERM (it is preempted or cancelled) let
    the job save. It is queued again, unless it was cancelled, and goes on in its folder.

    Raises:
        JobFailedError: if the job is not done.
    """

    def __init__(self, order: Order) -> None:
        self.order = order

    def __call__(self) -> None:
        requeue: Any = signal.getsignal(signal.SIGUSR2)
        heard: list[int] = []

        def hear(number: int, frame: FrameType | None) -> None:
            heard.append(number)

        remove(self.order.job.folder)  # of an attempt that Slurm itself has queued again
        signal.signal(signal.SIGUSR2, hear)
        signal.signal(signal.SIGTERM, hear)
        outcome = work(self.order, heard)
        folder = self.order.job.folder
        preempted = heard and outcome.state != "done" and not marks.is_asked_to_stop(folder)
        if preempted and (signal.SIGUSR2 in heard or _is_still_wanted()):
            try:
                requeue(signal.SIGUSR2, None)  # does not return
            except UncompletedJobError as error:  # too often
                outcome = replace(outcome, reason=f"{outcome.reason}: {one_line(error)}")
        write(outcome)
        if outcome.state != "done":
            raise JobFailedError(outcome.reason)

    def checkpoint(self) -> DelayedSubmission:
        """Return what is to be run when the job is started again."""
        return DelayedSubmission(self)


def write(outcome: Outcome) -> None:
    """Leave the outcome in the job's folder."""
    fields = {name: value for name, value in asdict(outcome).items() if name != "job"}
    write_atomically(outcome.job.folder / OUTCOME, json.dumps(fields).encode())


def read(job: Job) -> Outcome | None:
    """The outcome that the job's folder holds, if there is one."""
    try:
        return Outcome(job=job, **json.loads((job.folder / OUTCOME).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def forget(folder: Path) -> None:
    """Remove the outcome and the wishes of an earlier attempt."""
    marks.forget_stop(folder)
    remove(folder)


def remove(folder: Path) -> None:
    """Remove the outcome of an earlier attempt."""
    with suppress(OSError):
        (folder / OUTCOME).unlink(missing_ok=True)


def _is_still_wanted() -> bool:
    """Whether a job that was sent SIGTERM is still wanted.

    On Slurm not if it was cancelled, and Slurm need not be told if it has queued it again already.
    On this machine nobody cancels by a signal: that is left as word in the job's folder.
    """
    number = os.environ.get("SLURM_JOB_ID")
    if number is None:
        return True
    command = ["squeue", "--noheader", "--states=all", f"--jobs={number}", "--format=%T"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.stdout.split() == ["RUNNING"]
