"""The typed configuration of a run. Components get their types from their constructors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import Field, PlainValidator, ValidationInfo

from eqprop.config.explain import validated
from eqprop.config.layers import edge_of, short_key, skip_of
from eqprop.config.signature import (
    RUNNER,
    Component,
    Count,
    Model,
    OptionalCount,
    OptionalText,
    Strict,
    component_type,
)
from eqprop.config.targets import check_base, locate
from eqprop.run.errors import ConfigError
from eqprop.run.text import show


def read_component(group: str, path: str, given: Any, keys: Collection[str] = ()) -> Component:
    """Return a part of the configuration, typed by the constructor that its `_target_` names.

    ``group`` decides which arguments the runner supplies, ``path`` is the part's dotted key,
    ``keys`` are all that exist. Raises ConfigError, one line on the first mistake.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"{path}={show(given)}: must be a mapping with _target_")
    target, key = given.get("_target_"), f"{path}._target_"
    if not isinstance(target, str):
        what = f"{key}={show(target)}:" if "_target_" in given else f"missing key '{key}': it"
        raise ConfigError(f"{what} must be the dotted path of a class or function")
    try:
        constructor = locate(target)
        check_base(group, constructor)
        kind = component_type(group, constructor)
    except ConfigError as error:
        raise ConfigError(f"{key}={show(target)}: cannot be used: {error}") from error
    for name in sorted(RUNNER.get(group, set()) & given.keys()):
        how = "the runner sets it itself; leave it out"
        raise ConfigError(f"{path}.{name}={show(given[name])}: {how}")
    values = {str(key): value for key, value in given.items()}
    component = validated(kind, path, values, keys)
    for key, part in values.items():  # Hydra makes what is inside it, too
        if isinstance(part, Mapping) and "_target_" in part:
            read_component(f"{group}.{key}", f"{path}.{key}", part, keys)
    return component


def _component(value: Any, info: ValidationInfo) -> Component:
    group = str(info.field_name)
    part = read_component(group, group, value, info.context or ())
    if isinstance(part, Model):
        _check_layers(part)
    return part


def _check_layers(model: Model) -> None:
    for i, layer in enumerate(model.hidden):
        if not isinstance(layer, int):
            _check_edge(f"model.hidden[{i}]", layer, edge_of(f"model.hidden[{i}]", layer))
    for i, skip in enumerate(model.skips):
        _check_edge(f"model.skips[{i}]", skip, skip_of(f"model.skips[{i}]", skip)[2])


def _check_edge(path: str, given: Mapping[str, Any], edge: Mapping[str, Any]) -> None:
    try:
        read_component("edge", path, edge)
    except ConfigError as error:
        raise ConfigError(short_key(path, given, str(error))) from error


def _optional(value: Any, info: ValidationInfo) -> Component | None:
    return None if value is None else _component(value, info)


def _trackers(value: Any, info: ValidationInfo) -> dict[str, Component]:
    return _named("tracking.trackers", value, info)


def _callbacks(value: Any, info: ValidationInfo) -> dict[str, Component]:
    return _named("callbacks", value, info)


def _named(path: str, value: Any, info: ValidationInfo) -> dict[str, Component]:
    if not isinstance(value, Mapping):
        what = "a mapping name: {_target_: class, …}, or {} for none"
        raise ConfigError(f"{path}={show(value)}: must be {what}")
    keys = info.context or ()
    return {str(k): read_component(path, f"{path}.{k}", part, keys) for k, part in value.items()}


Part = Annotated[Component, PlainValidator(_component)]
OptionalPart = Annotated[Component | None, PlainValidator(_optional)]
OptionalRun = Annotated[
    Annotated[str, MinLen(1)] | None, Field(description="a run's folder or null")
]
Path = Annotated[str, MinLen(1), Field(pattern=r"^[^\x00]*$", description="a path")]

Project = Annotated[
    Annotated[str, Field(pattern=r"^[^/\\#?%:\x00-\x1f]{1,128}$")],
    Field(description=r"text of 1 to 128 characters without any of /\#?%:"),
]


class Device(Strict):
    """Where a run computes, and in which precision."""

    type: Literal["auto", "cpu", "cuda"]
    index: Annotated[int, Ge(0)]
    dtype: Literal["float32", "float64", "bfloat16"]
    threads: Annotated[int, Ge(1), Le(1024)] | None
    matmul: Literal["highest", "high", "medium"] = "highest"
    deterministic: bool
    compile: bool | Literal["auto"]
    cuda_graph: bool | Literal["auto"] = "auto"
    channels_last: bool = True


class Trainer(Strict):
    """How long a run trains, and how often it is measured."""

    epochs: Count
    log_every: Count
    eval_every: Count
    eval_batch_size: Count
    curves_every: OptionalCount = None
    progress: bool | None
    summary: bool = False
    limit_batches: OptionalCount = None
    profile: OptionalCount = None


class Diagnostics(Strict):
    """What a run looks at beside its training."""

    gradient_every: OptionalCount = None


class Checkpoint(Strict):
    """When a run saves, and how much of it stays."""

    every: Count
    every_steps: OptionalCount
    keep: Annotated[int, Ge(0)]
    share: Annotated[float, Gt(0), Le(1)]


class Tracking(Strict):
    """What every tracker is told, and which trackers there are."""

    project: Project
    entity: OptionalText
    group: OptionalText
    tags: list[Annotated[str, MinLen(1), MaxLen(64)]]
    notes: OptionalText
    trackers: Annotated[dict[str, Component], PlainValidator(_trackers)]


class Paths(Strict):
    """Where data and outputs lie."""

    data: Path
    outputs: Path


class Sweep(Strict):
    """How a multirun chooses, repeats and ends its jobs."""

    sampler: Literal["grid", "tpe", "random"] = "grid"
    n_trials: OptionalCount = None
    repeats: Count = 1
    jobs: Count = 1
    job_timeout: Annotated[float, Gt(0)] | None = None
    pruner: Literal["median", "halving", "hyperband"] | None = None
    seed: Annotated[int, Ge(0), Lt(2**32)] = 0
    max_failures: OptionalCount = None
    retry: bool = False

    @property
    def searches(self) -> bool:
        """Whether a sampler proposes the points, rather than the grid."""
        return self.sampler != "grid"

    def contradiction(self) -> str | None:
        """One line on keys that do not go together, else None."""
        if not self.searches and self.pruner is not None:
            return f"sweep.pruner={self.pruner}: a grid completes every point; use sweep=tpe"
        if self.searches and self.n_trials is None:
            return f"sweep.n_trials=null: sweep.sampler={self.sampler} needs a whole number >= 1"
        if self.searches and self.retry:
            return "sweep.retry=true: for a grid; a search tries others, up to sweep.max_failures"
        return None


class Config(Strict):
    """The whole configuration of a run."""

    seed: Annotated[int, Ge(0), Lt(2**63)]
    name: OptionalText
    resume: OptionalRun
    rerun: OptionalRun
    init_from: OptionalRun = None
    model: Annotated[Model, PlainValidator(_component)]
    cost: Part
    optimizer: Part
    scheduler: Part | None = None
    device: Device
    dataset: Part
    dynamics: Part
    estimator: Part
    noise: OptionalPart = None
    ablation: OptionalPart = None
    callbacks: Annotated[dict[str, Component], PlainValidator(_callbacks)] = Field({})
    trainer: Trainer
    diagnostics: Diagnostics = Diagnostics()
    checkpoint: Checkpoint
    tracking: Tracking
    paths: Paths
    sweep: Sweep = Sweep()

    @property
    def components(self) -> list[Component]:
        """The parts that a constructor is called for."""
        parts = [self.model, self.cost, self.optimizer, self.dataset, self.dynamics, self.estimator]
        more = [self.scheduler, self.noise, self.ablation]
        given = [part for part in more if part is not None]
        return [*parts, *given, *self.callbacks.values(), *self.tracking.trackers.values()]
