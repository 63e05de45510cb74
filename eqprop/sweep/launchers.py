"""From ``hydra.launcher``, as plain data, to the launcher that it names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from eqprop.config import explain, targets
from eqprop.config.fields import Component
from eqprop.run.errors import ConfigError
from eqprop.run.files import one_line
from eqprop.run.hardware import processors
from eqprop.run.text import show
from eqprop.sweep import launch_options as o
from eqprop.sweep.job import JobLauncher
from eqprop.sweep.local import LocalLauncher
from eqprop.sweep.order import Terms, this_program

LOCAL = "eqprop.sweep.local.LocalLauncher"
JOBLIB = "eqprop.sweep.joblib.JoblibLauncher"
SUBMITIT_LOCAL = "eqprop.sweep.submitit.SubmititLocalLauncher"
SLURM = "eqprop.sweep.submitit.SubmititSlurmLauncher"
RAY = "eqprop.sweep.ray.RayLauncher"

KNOWN: dict[str, type[Component]] = {
    LOCAL: o.Basic,
    JOBLIB: o.Joblib,
    SUBMITIT_LOCAL: o.SubmititLocal,
    SLURM: o.SubmititSlurm,
    RAY: o.Ray,
}
"""The launchers of our own, and the type of their keys."""

ON_THIS_MACHINE = (LOCAL, JOBLIB, SUBMITIT_LOCAL)
"""Those whose jobs share one machine that nobody else divides."""

EXTRAS = {
    JOBLIB: ("joblib", "joblib"),
    SUBMITIT_LOCAL: ("submitit", "slurm"),
    SLURM: ("submitit", "slurm"),
    RAY: ("ray", "ray"),
}
"""The module that a launcher needs, and the extra of ours that brings it."""

_HYDRAS = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
_CLUSTER_JOBS = 16


def make_launcher(
    options: Mapping[str, Any],
    jobs: int,
    job_timeout: float | None,
    threads: int | None,
    group: str | None,
    folder: Path,
    gpus: tuple[str, ...] = (),
) -> JobLauncher:
    """Return the launcher that ``hydra.launcher`` names; nothing is started yet.

    Args:
        options: ``hydra.launcher``, resolved.
        jobs: ``sweep.jobs``, how many at a time on one machine.
        job_timeout: ``sweep.job_timeout``, seconds.
        threads: ``device.threads``, if the person chose it; else the processors are divided.
        group: what trackers put the jobs together by.
        folder: the sweep's.
        gpus: of this machine, of which each job sees one; none: nothing is divided.

    Raises:
        ConfigError: one line on a wrong key, an extra that is missing, a queue that is not there.
    """
    target, given = _checked(options)
    share = _share(target, given, jobs) if threads is None else None
    own = gpus if target in ON_THIS_MACHINE else ()
    terms = Terms(this_program(), timeout=job_timeout, threads=share, group=group, gpus=own)
    if target == LOCAL:
        return LocalLauncher(terms, jobs)
    if target == SLURM:
        jobs = given.pop("max_jobs", None) or (jobs if jobs > 1 else _CLUSTER_JOBS)
        given = _for_sbatch(given)
    try:
        made: JobLauncher = targets.locate(target)(terms, jobs, folder, **given)
    except (ConnectionError, ValueError, TypeError) as error:
        raise ConfigError(
            f"hydra.launcher: {target.rpartition('.')[2]} cannot be set up: {one_line(error)}"
        ) from error
    return made


def _checked(options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    target = options.get("_target_")
    if target == _HYDRAS:  # composed without our files
        return LOCAL, {}
    if not isinstance(target, str) or target.startswith("hydra_plugins."):
        raise ConfigError(
            f"hydra.launcher._target_={show(target)}: must be one of our own launchers; choose "
            "hydra/launcher=basic, joblib, submitit_local, submitit_slurm or ray"
        )
    if target in EXTRAS:
        module, extra = EXTRAS[target]
        if find_spec(module) is None:
            name = {SUBMITIT_LOCAL: "submitit_local", SLURM: "submitit_slurm"}.get(target, extra)
            raise ConfigError(
                f'hydra/launcher={name} needs {module}: pip install "eqprop[{extra}]"'
            )
    given = {str(key): value for key, value in options.items()}
    kind = KNOWN.get(target)
    if kind is None:
        for line in targets.problems("launcher", "hydra.launcher", given, KNOWN):
            raise ConfigError(line)
        return target, {key: value for key, value in given.items() if key != "_target_"}
    return target, _parsed(kind, given)


def _parsed(kind: type[Component], given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return kind.model_validate(given).options()
    except ValidationError as error:
        keys = [f"hydra.launcher.{f.alias or name}" for name, f in kind.model_fields.items()]
        found = [
            line for _, line in explain.lines(kind, "hydra.launcher", given, error, lambda: keys)
        ]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ConfigError(found[0] + more) from error


def _share(target: str, given: Mapping[str, Any], jobs: int) -> int | None:
    """The threads of each job, so that together they fill what there is and no more."""
    if target == SLURM:
        return int(
            given.get("cpus_per_task", o.SubmititSlurm.model_fields["cpus_per_task"].default)
        )
    if target == RAY:
        return max(1, int(given.get("cpus_per_job", 1)))
    if jobs == 1:
        return None
    told = os.environ.get("OMP_NUM_THREADS", "")
    most = processors() // jobs
    return max(1, min(int(told), most) if told.isdigit() and int(told) else most)


def _for_sbatch(given: Mapping[str, Any]) -> dict[str, Any]:
    named = {"job_name": given.get("name", "eqprop")}
    memory = given.get("mem_gb")
    if memory is not None:
        named["mem"] = f"{round(memory * 1024)}MB"
    rest = {key: value for key, value in given.items() if key not in ("name", "mem_gb")}
    return {**rest, **named}
