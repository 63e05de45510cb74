"""From ``hydra.launcher``, as plain data, to the launcher that it names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from eqprop.config.explain import MistakesError
from eqprop.config.schema import read_component
from eqprop.run.errors import ConfigError
from eqprop.run.hardware import gpu_count, processors
from eqprop.run.text import key_of, one_line, show
from eqprop.sweep.job import Launcher
from eqprop.sweep.process import VISIBLE, LocalLauncher

SLURM = "eqprop.sweep.slurm.SlurmLauncher"
RAY = "eqprop.sweep.ray.RayLauncher"

NEEDS = {SLURM: ("submitit_slurm", "submitit", "slurm"), RAY: ("ray", "ray", "ray")}
"""Each launcher's option, the module that it needs, and the extra that brings it."""


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
    if target.startswith("hydra_plugins.") or target == "None":
        raise ConfigError(
            f"hydra.launcher._target_={show(target)}: must be a launcher of eqprop's; choose "
            "hydra/launcher=basic, submitit_slurm or ray"
        )
    option, module, extra = NEEDS.get(target, ("", "sys", ""))
    if find_spec(module) is None:
        raise ConfigError(f'hydra/launcher={option} needs {module}: pip install "eqprop[{extra}]"')
    try:
        chosen = read_component("launcher", "hydra.launcher", options)
    except MistakesError as error:
        raise ConfigError(error.args[0]) from error
    try:
        made: Launcher = chosen.constructor(jobs, folder, **chosen.options())
    except (ConnectionError, ValueError, TypeError) as error:
        raise ConfigError(
            f"hydra.launcher: {target.rpartition('.')[2]} cannot be set up: {one_line(error, 300)}"
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
    names = given[:count] if given else [str(number) for number in range(count)]
    return tuple(names) if len(names) > 1 else ()
