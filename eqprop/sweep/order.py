"""What starts a job anywhere: its command, where it runs, its environment, how long it may take."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hydra._internal.utils import get_args_parser

from eqprop.cli.command import quoted
from eqprop.cli.failures import TRACEBACK
from eqprop.run.text import key_of
from eqprop.sweep.job import Job

GRACE = (5.0, 30.0)
"""Seconds that a job gets to save: as long as it may run, within these bounds."""

_POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Order:
    """One job, ready to be started by any process that sees its folder.

    Attributes:
        command: the program and its arguments, but for ``resume``.
        cwd: the directory it runs in, absolute.
        env: variables to set beside those that are there; None takes one away.
        timeout: seconds it may take; None: any.
        grace: seconds from being asked to stop to being killed.
    """

    job: Job
    command: tuple[str, ...]
    cwd: str
    env: dict[str, str | None]
    timeout: float | None
    grace: float

    def environment(self) -> dict[str, str]:
        """The whole environment of the job's process."""
        changed = {**os.environ, **self.env}
        return {name: value for name, value in changed.items() if value is not None}

    def words(self) -> list[str]:
        """The command line; it goes on with what an earlier process of the job left."""
        resumes = (self.job.folder / "status.json").exists()
        return [*self.command, *(["resume=auto"] if resumes else [])]


@dataclass(frozen=True)
class Terms:
    """What all jobs of a sweep have in common.

    Args:
        program: the words before the overrides.
        timeout: ``sweep.job_timeout``, seconds.
        threads: CPU threads of each job; None: left to the job.
        group: what trackers put the jobs together by; None: left to the job.
        gpus: of which each job sees one; none: nothing is divided.
    """

    program: tuple[str, ...]
    timeout: float | None = None
    threads: int | None = None
    group: str | None = None
    grace: float | None = None
    cwd: str = field(default_factory=os.getcwd)
    gpus: tuple[str, ...] = ()

    @property
    def grace_seconds(self) -> float:
        """How long a job that is asked to stop may take to save."""
        low, high = GRACE
        return min(max(self.timeout or high, low), high) if self.grace is None else self.grace

    def order(self, job: Job) -> Order:
        """The order for a job."""
        words = [*job.overrides, *self._shared(job), f"hydra.run.dir={quoted(str(job.folder))}"]
        return Order(
            job, (*self.program, *words), self.cwd, self._env(), self.timeout, self.grace_seconds
        )

    def _shared(self, job: Job) -> list[str]:
        given = {key_of(word) for word in job.overrides}
        shared = {"device.threads": self.threads, "tracking.group": self.group}
        values = {key: str(value) for key, value in shared.items() if value is not None}
        return [f"{key}={quoted(text)}" for key, text in values.items() if key not in given]

    def _env(self) -> dict[str, str | None]:
        # the command sets HYDRA_FULL_ERROR itself; a job's errors are to be one line all the same
        full = "1" if TRACEBACK in os.environ else "0"
        env: dict[str, str | None] = {"HYDRA_FULL_ERROR": full}
        env["PYTHONFAULTHANDLER"] = "1"  # a job that crashes says where, in its console.log
        if self.threads is not None:
            env |= {name: str(self.threads) for name in _POOLS}
        if "PYTHONPATH" in os.environ:
            env["PYTHONPATH"] = os.environ["PYTHONPATH"]
        return env


def this_program(argv: Sequence[str] | None = None) -> tuple[str, ...]:
    """The command that is running, with its flags that say where the configuration lies."""
    words = list(sys.argv if argv is None else argv)
    script = Path(words[0]).absolute() if words and words[0] else None
    if script is not None and script.is_file():
        program = [sys.executable, str(script)]
    else:  # python -c, or from another program
        program = [sys.executable, "-c", "from eqprop.cli.main import run; run()"]
    given, _ = get_args_parser().parse_known_args(words[1:])
    flags = {"--config-path": given.config_path, "--config-name": given.config_name}
    flags["--config-dir"] = given.config_dir
    return (*program, *(f"{flag}={value}" for flag, value in flags.items() if value is not None))


@contextmanager
def unheard() -> Iterator[None]:
    """What starts within it never hears a Ctrl-C on the terminal: that is for the sweep alone."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
