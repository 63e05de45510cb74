"""A sweep from its configuration to its end."""

from __future__ import annotations

import itertools
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from eqprop.config.compose import Composer
from eqprop.run.errors import RunError
from eqprop.run.files import write_atomically
from eqprop.run.lock import take_lock
from eqprop.run.redact import redact
from eqprop.run.signals import listening
from eqprop.run.text import key_of
from eqprop.sweep import plan
from eqprop.sweep.display import Display, summary
from eqprop.sweep.job import Launcher
from eqprop.sweep.launchers import gpus_for, make_launcher, threads_of
from eqprop.sweep.plan import Plan
from eqprop.sweep.study import ELSEWHERE, Record
from eqprop.sweep.sweeper import Sweeper


def run_sweep(composer: Composer, master: DictConfig, program: Sequence[str]) -> int:
    """Run, or go on with, the sweep of a multirun's configuration; returns as ``conduct`` does.

    ``program`` are the words that start a job, before its overrides.
    """
    asked = plan.read(composer, master, program)
    plan.check(asked)
    options = cast("dict[str, Any]", OmegaConf.to_container(master.hydra.launcher, resolve=True))
    words, jobs = [str(getattr(entry, "key", entry)) for entry in asked.entries], asked.options.jobs
    gpus = gpus_for(str(master.device.type), jobs, words)
    launcher = make_launcher(options, jobs, asked.folder, gpus)
    raw = cast("dict[str, Any]", OmegaConf.to_container(master.hydra.sweep, resolve=False))
    folder = _new(asked.folder) if "${now:" in str(raw["dir"]) else asked.folder
    asked = replace(asked, folder=folder, threads=threads_of(options, jobs))
    return conduct(asked, launcher, redact(OmegaConf.to_yaml(master)))


def conduct(asked: Plan, launcher: Launcher, config: str = "") -> int:
    """Run, or go on with, a planned sweep; returns 1 if something failed or is unfinished.

    Raises:
        ConfigError: if its folder holds another sweep or is in use.
        RunError: if its record can no longer be written; running jobs save.
        Stopped: if a signal ended it; running jobs have saved.
    """
    folder = asked.folder
    folder.mkdir(parents=True, exist_ok=True)
    lock = take_lock(folder, ELSEWHERE)
    try:
        record = Record(asked)
        write_atomically(folder / "multirun.yaml", config.encode())
        with listening() as stop, stop.deferred():
            display = Display(record.total)
            try:
                Sweeper(record, launcher, display, stop).run()
            except BrokenPipeError:  # nobody reads what is printed
                raise
            except OSError as error:
                raise RunError(
                    f"cannot write the sweep's record in {folder}: {error.strerror or error}; its "
                    f"running jobs save and end; then go on with: {_same_command(folder)}"
                ) from error
            finally:
                display.close()
            ended = [] if record.ended is None else [record.ended]
            for line in [*ended, *summary(folder, record.trials)]:
                display.say(line)
            if unfinished := any(not run.is_finished for run in record.runs):
                display.say(f"go on with: {_same_command(folder)}")
            stop.raise_if_requested()
        failed = any(run.state == "failed" for run in record.runs)
        return int(failed or unfinished)
    finally:
        launcher.close()
        lock.release()


def _new(folder: Path) -> Path:
    """Make the folder, or one beside it where another sweep began in the same second."""
    for number in itertools.count(1):
        path = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise AssertionError


def _same_command(folder: Path) -> str:
    """Return the command that goes on with the sweep, quoted for a shell."""
    program, *words = sys.argv
    start = ["python", program] if program.endswith(".py") else [Path(program).name]
    if not any(key_of(word) == "hydra.sweep.dir" for word in words):
        words = [*words, f"hydra.sweep.dir={os.path.relpath(folder)}"]
    return shlex.join([*start, *map(redact, words)])
