"""The types of ``hydra.launcher``: which keys each launcher has, and what they may hold."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from eqprop.config.fields import Component, Count, OptionalCount, OptionalText, Positive

NotNegativeCount = Annotated[
    int, Field(ge=0, lt=2**31, description="a whole number >= 0 and < 2^31")
]


class Basic(Component):
    """Processes of this machine: nothing to choose."""


class Joblib(Component):
    """joblib's workers."""

    idle: Positive = 300.0


class SubmititLocal(Component):
    """submitit's processes."""

    timeout_min: OptionalCount = None
    signal_delay_s: Count = 60
    requeues: NotNegativeCount = 5


class SubmititSlurm(Component):
    """Slurm."""

    max_jobs: OptionalCount = None
    timeout_min: OptionalCount = None
    signal_delay_s: Count = 120
    requeues: NotNegativeCount = 20
    name: Annotated[str, Field(min_length=1, description="text")] = "eqprop"
    partition: OptionalText = None
    account: OptionalText = None
    qos: OptionalText = None
    constraint: OptionalText = None
    cpus_per_task: Count = 2
    gpus_per_node: OptionalCount = None
    mem_gb: Annotated[
        Annotated[float, Field(gt=0)] | None, Field(description="null or a finite number > 0")
    ] = None
    setup: Annotated[list[str], Field(description="a list of texts")] = []  # noqa: RUF012
    additional_parameters: Annotated[
        dict[str, Any], Field(description="a mapping of sbatch's long options to values")
    ] = {}  # noqa: RUF012


class Ray(Component):
    """Ray."""

    address: OptionalText = None
    cpus_per_job: Positive = 1.0
    gpus_per_job: Annotated[float, Field(ge=0, description="a finite number >= 0")] = 0.0
