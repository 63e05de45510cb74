"""The typed configuration: the whole of it, the rules across groups, and one line for a mistake.

`KNOWN` says which `_target_` is checked by which type: a new option of our own is one line there;
any other `_target_` is checked against its signature (`eqprop.config.targets`). Neither torch nor
Hydra is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, Field, ValidationError

from eqprop.config import explain, targets
from eqprop.config import options as o
from eqprop.config.fields import Component, OptionalRun, OptionalText, Strict
from eqprop.config.rules import (
    ADAGRAD,
    ANDERSON,
    EXACT,
    GAUSSIAN,
    HOPFIELD,
    RULES,
    TENSORBOARD,
)
from eqprop.run.errors import ConfigError
from eqprop.run.text import one_line, show
from eqprop.sweep.options import Sweep


class Config(Strict):
    """The whole configuration of a run."""

    seed: Annotated[int, Field(ge=0, lt=2**63, description="a whole number from 0 to 2^63 - 1")]
    name: OptionalText
    resume: OptionalRun
    rerun: OptionalRun
    model: o.Model
    cost: Component
    optimizer: Component
    device: o.Device
    dataset: Component
    dynamics: Component
    estimator: Component
    trainer: o.Trainer
    checkpoint: o.Checkpoint
    tracking: o.Tracking
    paths: o.Paths
    sweep: Sweep = Sweep()


_TRACKERS = "tracking.trackers"
_BROKEN: Final = object()  # stands where a part was wrong and has been reported
_T = TypeVar("_T", bound=BaseModel)

KNOWN: dict[str, dict[str, type[Component]]] = {
    "model": {GAUSSIAN: o.Model, HOPFIELD: o.Model},
    "cost": {"eqprop.SquaredError": o.Cost, "eqprop.CrossEntropy": o.Cost},
    "optimizer": {
        "torch.optim.Adam": o.Adam,
        "torch.optim.SGD": o.SGD,
        ADAGRAD: o.Adagrad,
    },
    "dataset": {
        "eqprop.data.MNIST5k": o.Dataset,
        "eqprop.data.MNIST": o.Dataset,
        "eqprop.data.FashionMNIST": o.Dataset,
        "eqprop.data.KMNIST": o.Dataset,
        "eqprop.data.Digits": o.Dataset,
    },
    "dynamics": {
        "eqprop.relaxation.Auto": o.Auto,
        "eqprop.relaxation.Euler": o.Euler,
        "eqprop.relaxation.Newton": o.Newton,
        EXACT: o.Dynamics,
        ANDERSON: o.Anderson,
    },
    "estimator": {
        "eqprop.estimator.EquilibriumPropagation": o.Estimator,
        "eqprop.estimator.CenteredEquilibriumPropagation": o.CenteredEstimator,
    },
    _TRACKERS: {
        "eqprop.tracking.WandbTracker": o.Wandb,
        TENSORBOARD: Component,
    },
}
"""For each group of components, its own targets and the type of their keys."""


def validate(cfg: Mapping[Any, Any]) -> Config:
    """Check a resolved configuration, without Hydra's own part, and return it typed.

    Raises:
        ConfigError: one line with the key, the value, what is allowed and the nearest name: the
            first mistake, and how many more there are.
    """
    reader = _Reader(cfg)
    config = reader.config()
    found = reader.found
    if config is not None and not found:
        found = [line for rule in RULES if (line := rule(config)) is not None]
    if found or config is None:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ConfigError(one_line(found[0]) + more)
    return config


def all_keys(cfg: Mapping[str, Any]) -> list[str]:
    """Return every key, dotted, that a configuration with these targets may have."""
    keys = list(Config.model_fields)
    for name, field in Config.model_fields.items():
        part = cfg.get(name)
        kind: Any = field.annotation
        if name in KNOWN and isinstance(part, Mapping):
            kind = KNOWN[name].get(str(part.get("_target_")), kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys.extend(f"{name}.{f.alias or key}" for key, f in kind.model_fields.items())
    return keys


def known_keys() -> list[str]:
    """Return the dotted keys of all our own options, chosen or not."""
    return [
        f"{group}.{field.alias or key}"
        for group, kinds in KNOWN.items()
        for kind in kinds.values()
        for key, field in kind.model_fields.items()
    ]


def json_schema(group: str | None = None) -> dict[str, Any]:
    """Return a JSON schema, for editors, of the whole configuration or of one group's options."""
    whole = Config.model_json_schema(by_alias=True)
    definitions = whole["$defs"]
    definitions["Tracking"]["properties"]["trackers"]["additionalProperties"] = _one_of(_TRACKERS)
    for name in KNOWN.keys() & Config.model_fields.keys():
        whole["properties"][name] = _one_of(name)
    whole["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    if group is None:
        return whole
    part = whole["properties"][group]
    if "$ref" in part:
        part = definitions[part["$ref"].rpartition("/")[2]]
    return {"$schema": whole["$schema"], **part}


def _one_of(group: str) -> dict[str, Any]:
    ours = []
    for target, kind in KNOWN[group].items():
        schema = kind.model_json_schema(by_alias=True)
        schema["properties"]["_target_"] = {"const": target}
        ours.append(schema)
    foreign = {"type": "string", "not": {"enum": list(KNOWN[group])}}
    other = {"type": "object", "required": ["_target_"], "properties": {"_target_": foreign}}
    return {"anyOf": [*ours, other]}


class _Reader:
    """Turns mappings into typed parts, and collects a line for each mistake on the way."""

    def __init__(self, cfg: Mapping[Any, Any]) -> None:
        self.cfg = {str(key): value for key, value in cfg.items()}
        self.found: list[str] = []

    def config(self) -> Config | None:
        parts = {name: self._part(name, value) for name, value in self.cfg.items()}
        return self._parse(Config, "", parts)

    def _part(self, name: str, value: Any) -> Any:
        if name in KNOWN:
            return self._component(name, name, value)
        field = Config.model_fields.get(name)
        if field is None or not isinstance(value, Mapping):
            return value
        kind = field.annotation
        if kind is o.Tracking:
            value = {**value, "trackers": self._trackers(value.get("trackers"))}
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return self._parse(kind, name, value) or _BROKEN
        return value

    def _trackers(self, trackers: Any) -> Any:
        if not isinstance(trackers, Mapping):
            return trackers
        made = {
            str(name): self._component(_TRACKERS, f"{_TRACKERS}.{name}", part)
            for name, part in trackers.items()
        }
        return _BROKEN if _BROKEN in made.values() else made

    def _component(self, group: str, path: str, value: Any) -> Any:
        if not isinstance(value, Mapping):
            self.found.append(f"{path}={show(value)}: must be a mapping with _target_")
            return _BROKEN
        target = value.get("_target_")
        if not isinstance(target, str):
            key, allowed = f"{path}._target_", "be the dotted path of a class or function"
            given = f"{key}={show(target)}:" if "_target_" in value else f"missing key '{key}': it"
            self.found.append(f"{given} must {allowed}")
            return _BROKEN
        kind = KNOWN[group].get(target)
        if kind is None:
            kind = o.ForeignModel if group == "model" else o.Foreign
            lines = list(targets.problems(group, path, value, KNOWN[group]))
            self.found.extend(lines)
            if lines:
                return _BROKEN
        return self._parse(kind, path, value) or _BROKEN

    def _parse(self, kind: type[_T], path: str, value: Mapping[Any, Any]) -> _T | None:
        given = {str(key): part for key, part in value.items()}
        try:
            return kind.model_validate(given)
        except ValidationError as error:
            for key, line in explain.lines(kind, path, given, error, lambda: all_keys(self.cfg)):
                if given.get(key) is not _BROKEN:
                    self.found.append(line)
        return None
