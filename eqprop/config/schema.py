"""The typed configuration of a run. Components get their types from their constructors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import Field, PlainValidator, ValidationError, ValidationInfo

from eqprop.config import explain
from eqprop.config.explain import MistakesError
from eqprop.config.fields import (
    Component,
    Count,
    OptionalCount,
    OptionalRun,
    OptionalText,
    Path,
    Strict,
)
from eqprop.config.signature import RUNNER, Model, component_type
from eqprop.config.sweep import Sweep
from eqprop.config.targets import locate
from eqprop.run.errors import ConfigError
from eqprop.run.text import show


def read_component(
    group: str, path: str, given: Any, keys: Collection[str] = frozenset()
) -> Component:
    """Return a part of the configuration, typed by the constructor that its `_target_` names.

    Args:
        group: which runner-supplied arguments its constructor gets.
        path: the dotted key where it stands.
        given: its keys and values with `_target_`.
        keys: every dotted key that exists, for the nearest name.

    Raises:
        MistakesError: a line for everything that is wrong with it.
    """
    if not isinstance(given, Mapping):
        raise MistakesError([f"{path}={show(given)}: must be a mapping with _target_"])
    target, key = given.get("_target_"), f"{path}._target_"
    if not isinstance(target, str):
        what = f"{key}={show(target)}:" if "_target_" in given else f"missing key '{key}': it"
        raise MistakesError([f"{what} must be the dotted path of a class or function"])
    try:
        kind = component_type(group, locate(target))
    except ConfigError as error:
        raise MistakesError([f"{key}={show(target)}: cannot be used: {error}"]) from error
    if supplied := RUNNER.get(group, frozenset()) & given.keys():
        how = "the runner sets it itself; leave it out"
        raise MistakesError([f"{path}.{k}={show(given[k])}: {how}" for k in sorted(supplied)])
    values = {str(key): value for key, value in given.items()}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = explain.lines(kind, path, values, error, lambda: keys)
        raise MistakesError([line for _, line in lines]) from error


def _component(value: Any, info: ValidationInfo) -> Component:
    group = str(info.field_name)
    return read_component(group, group, value, info.context or ())


def _model(value: Any, info: ValidationInfo) -> Component:
    model = _component(value, info)
    for i, layer in enumerate(model.hidden if isinstance(model, Model) else ()):
        if not isinstance(layer, int):
            read_component("edge", f"model.hidden[{i}]", layer)
    return model


def _trackers(value: Any, info: ValidationInfo) -> dict[str, Component]:
    path = "tracking.trackers"
    if not isinstance(value, Mapping):
        what = "a mapping name: {_target_: class, …}, or {} for none"
        raise MistakesError([f"{path}={show(value)}: must be {what}"])
    read: dict[str, Component] = {}
    mistakes: list[str] = []
    for name, part in value.items():
        try:
            read[str(name)] = read_component(path, f"{path}.{name}", part, info.context or ())
        except MistakesError as error:
            mistakes += error.args
    if mistakes:
        raise MistakesError(mistakes)
    return read


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


class Trainer(Strict):
    """How long a run trains, and how often it is measured."""

    epochs: Count
    log_every: Count
    eval_every: Count
    eval_batch_size: Count
    curves_every: OptionalCount = None
    progress: bool | None
    limit_batches: OptionalCount = None
    profile: OptionalCount = None


class Checkpoint(Strict):
    """When a run saves, and how much of it stays."""

    every: Count
    every_steps: OptionalCount
    keep: Annotated[int, Ge(0)]
    share: Annotated[float, Gt(0), Le(1)]


class Tracking(Strict):
    """What every tracker is told, and which trackers there are."""

    project: Annotated[
        str,
        Field(
            pattern=r"^[^/\\#?%:\x00-\x1f]{1,128}$",
            description=r"text of 1 to 128 characters without any of /\#?%:",
        ),
    ]
    entity: OptionalText
    group: OptionalText
    tags: list[Annotated[str, MinLen(1), MaxLen(64)]]
    notes: OptionalText
    trackers: Annotated[dict[str, Component], PlainValidator(_trackers)]


class Paths(Strict):
    """Where data and outputs lie."""

    data: Path
    outputs: Path


class Config(Strict):
    """The whole configuration of a run."""

    seed: Annotated[int, Ge(0), Lt(2**63)]
    name: OptionalText
    resume: OptionalRun
    rerun: OptionalRun
    model: Annotated[Model, PlainValidator(_model)]
    cost: Annotated[Component, PlainValidator(_component)]
    optimizer: Annotated[Component, PlainValidator(_component)]
    device: Device
    dataset: Annotated[Component, PlainValidator(_component)]
    dynamics: Annotated[Component, PlainValidator(_component)]
    estimator: Annotated[Component, PlainValidator(_component)]
    trainer: Trainer
    checkpoint: Checkpoint
    tracking: Tracking
    paths: Paths
    sweep: Sweep = Sweep()

    @property
    def components(self) -> list[Component]:
        """The parts that a constructor is called for."""
        parts = [getattr(self, name) for name in type(self).model_fields]
        found = [part for part in parts if isinstance(part, Component)]
        return [*found, *self.tracking.trackers.values()]
