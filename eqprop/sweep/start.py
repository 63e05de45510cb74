"""A sweep from its configuration to its end."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from eqprop.config.compose import Composer
from eqprop.config.schema import read_component
from eqprop.run.errors import ConfigError, RunError
from eqprop.run.hardware import gpu_count, processors
from eqprop.run.lock import take_lock
from eqprop.run.signals import listening
from eqprop.run.text import key_of, one_line
from eqprop.sweep import plan
from eqprop.sweep.display import Display, summary
from eqprop.sweep.job import Launcher
from eqprop.sweep.plan import Plan
from eqprop.sweep.process import VISIBLE, LocalLauncher
from eqprop.sweep.study import ELSEWHERE, Record
from eqprop.sweep.sweeper import Sweeper

NEEDS = {
    "eqprop.sweep.slurm.SlurmLauncher": ("submitit_slurm", "submitit", "slurm"),
    "eqprop.sweep.ray.RayLauncher": ("ray", "ray", "ray"),
}
"""Each launcher's option, the module that it needs, and the extra that brings it."""


def run_sweep(composer: Composer, master: DictConfig, program: Sequence[str]) -> int:
    """Run, or go on with, the sweep of a multirun's configuration; returns as ``conduct`` does.

    ``program`` are the words that start a job, before its overrides.
    """
    asked = plan.read(composer, master, program)
    plan.check(asked)
    options: Any = OmegaConf.to_container(master.hydra.launcher, resolve=True)
    words, jobs = [str(getattr(entry, "key", entry)) for entry in asked.entries], asked.options.jobs
    gpus = gpus_for(str(master.device.type), jobs, words)
    launcher = make_launcher(options, jobs, asked.folder, gpus)
    return conduct(replace(asked, threads=threads_of(options, jobs)), launcher)


def conduct(asked: Plan, launcher: Launcher) -> int:
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
        with listening() as stop, stop.deferred():
            head = f"if interrupted, go on with: {_same_command(folder)}"
            with Display(record.total, head=head) as display:
                Sweeper(record, launcher, display, stop).run()
            unfinished = any(not run.is_finished for run in record.runs)
            for line in summary(folder, record.trials, record.ended):
                display.say(line)
            if unfinished:
                display.say(f"go on with: {_same_command(folder)}")
            stop.raise_if_requested()
        return int(unfinished or any(run.state == "failed" for run in record.runs))
    except BrokenPipeError:  # nobody reads what is printed
        raise
    except OSError as error:
        raise RunError(
            f"cannot write the sweep's record in {folder}: {error.strerror or error}; its "
            f"running jobs save and end; then go on with: {_same_command(folder)}"
        ) from error
    finally:
        launcher.close()
        lock.release()


def _same_command(folder: Path) -> str:
    """Return the command that goes on with the sweep, quoted for a shell."""
    program, *words = sys.argv
    start = ["python", program] if program.endswith(".py") else [Path(program).name]
    if not any(key_of(word) == "hydra.sweep.dir" for word in words):
        words = [*words, f"hydra.sweep.dir={os.path.relpath(folder)}"]
    return shlex.join([*start, *words])


def make_launcher(
    options: Mapping[str, Any], jobs: int, folder: Path, gpus: tuple[str, ...] = ()
) -> Launcher:
    """Return the launcher that ``options``, the resolved ``hydra.launcher``, name.

    Raises:
        ConfigError: one line on a wrong key, an extra that is missing, a queue that is not there.
    """
    target = str(options.get("_target_"))
    if target.endswith(".BasicLauncher"):  # Hydra's own option basic, which always exists
        return LocalLauncher(jobs, folder, gpus)
    option, module, extra = NEEDS.get(target, ("", "sys", ""))
    if find_spec(module) is None:
        raise ConfigError(f'hydra/launcher={option} needs {module}: pip install "eqprop[{extra}]"')
    try:
        chosen = read_component("launcher", "hydra.launcher", options)
        made: Launcher = chosen.constructor(jobs, folder, **chosen.options())
    except ConfigError:
        raise
    except (ConnectionError, ValueError, TypeError) as error:
        raise ConfigError(
            f"hydra.launcher: cannot set up {target}: {one_line(error, 300)}"
        ) from error
    return made


def threads_of(options: Mapping[str, Any], jobs: int) -> int | None:
    """Return the CPU threads of each job, so that together they fill what there is and no more."""
    if "cpus_per_task" in options or "cpus_per_job" in options:
        return max(1, int(options.get("cpus_per_task") or options["cpus_per_job"]))
    if jobs == 1:
        return None
    told = os.environ.get("OMP_NUM_THREADS", "")
    most = processors() // jobs
    return max(1, min(int(told), most) if told.isdigit() and int(told) else most)


def gpus_for(device: str, jobs: int, words: Iterable[str]) -> tuple[str, ...]:
    """Return the GPUs of which each local job is to see one, as ``CUDA_VISIBLE_DEVICES`` does.

    None where there is nothing to divide, or where ``words``, the sweep's overrides, choose one.
    """
    if device == "cpu" or jobs == 1 or any(key_of(word) == "device.index" for word in words):
        return ()
    count = gpu_count()  # of those that are visible
    given = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    names = given[:count] or [str(number) for number in range(count)]
    return tuple(names) if len(names) > 1 else ()
