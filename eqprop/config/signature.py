"""The type of a component's keys, made of the parameters of its constructor."""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, MinLen
from pydantic import BaseModel, ConfigDict, Field, create_model
from typing_extensions import Doc

from eqprop.config.constructor import named_parameters
from eqprop.config.layers import activations
from eqprop.config.targets import locate

Count = Annotated[int, Ge(1)]
OptionalCount = Count | None
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
OptionalText = Annotated[str | None, Field(description="text (a number in quotes) or null")]
NotNegativeCount = Annotated[int, Ge(0)]
OptionalPositive = Positive | None
Text = Annotated[str, MinLen(1)]
Texts = list[str]
Mapping = dict[str, Any]


class Strict(BaseModel):
    """A part of the configuration with exactly its own keys and types; numbers are finite."""

    model_config = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, frozen=True, defer_build=True
    )


class Component(Strict):
    """A part whose `_target_` says which class (or function) makes it from the other keys."""

    target: str = Field(alias="_target_")

    @property
    def constructor(self) -> Any:
        """The class or function that `_target_` names."""
        return locate(self.target)

    def options(self) -> dict[str, Any]:
        """Return the other keys that were given."""
        return self.model_dump(exclude={"target"}, exclude_unset=True, by_alias=True)


RUNNER: dict[str, frozenset[str]] = {
    "model": frozenset({"dimensions", "c_energy", "batch_size", "phi"}),
    "cost": frozenset({"beta"}),
    "optimizer": frozenset({"params"}),
    "scheduler": frozenset({"optimizer", "last_epoch"}),
    "dataset": frozenset({"root"}),
    "dynamics": frozenset({"network"}),
    "edge": frozenset({"in_shape"}),
    "launcher": frozenset({"capacity", "folder"}),
}
"""The arguments of each group's constructors that the runner itself supplies."""

RUN_LENGTH = ("T_max", "total_steps")
"""Keys of schedules that are the run's length where they are left open."""
_RUN_LENGTH = Annotated[OptionalCount, Doc("scheduler steps (null: those of the whole run)")]


class Model(Component):
    """An energy: the runner itself uses these keys, and makes the layers from them."""

    hidden: Annotated[
        list[Annotated[int, Ge(1)] | dict[str, Any]],
        MinLen(1),
        Doc("the hidden layers: units of a dense one, {conv: channels, …}, or _target_ of an edge"),
    ]
    skips: Annotated[
        list[dict[str, Any]],
        Doc("edges beside them: {from: 0, to: 2}, the identity, or with conv: or _target_"),
    ] = []
    activation: str
    output_activation: str | None = None
    gain: Annotated[
        Positive | list[Positive], Doc("factor on the first weights, for all or one a layer")
    ] = 1.0
    bias_init: Annotated[
        Literal["uniform", "zeros"], Doc("how biases start: as torch's, or at 0")
    ] = "uniform"
    weight_init: Annotated[
        Literal["uniform", "glorot"],
        Doc("how weights start: in ± 1/√fan_in, as torch's, or in ± √(6/(fan_in + fan_out))"),
    ] = "uniform"
    feedback: Annotated[
        Literal["symmetric", "fixed", "learned"],
        Doc("weights by which signals come back: the same, or random ones that stay or learn"),
    ] = "symmetric"

    def activations(self) -> tuple[str, str]:
        """The activation of the hidden layers, and of the output."""
        return activations(self.model_dump(), self.constructor)


class Optimizer(Component):
    """An optimizer: the training step clips what it is given."""

    clip_norm: Annotated[
        OptionalPositive, Doc("the whole gradient is scaled down to this norm (null: never)")
    ] = None


class Scheduler(Component):
    """A schedule of the learning rate, stepped by the training."""

    every: Annotated[Literal["epoch", "step"], Doc("after what the schedule is stepped")] = "epoch"


_BASES: dict[str, type[Component]] = {
    "model": Model,
    "optimizer": Optimizer,
    "scheduler": Scheduler,
}


@functools.cache
def component_type(group: str, constructor: Any) -> type[Component]:
    """The type of a component's keys in ``group``, from its constructor's signature."""
    base = _BASES.get(group, Component)
    skipped = {*RUNNER.get(group, ()), *(base.model_fields.keys() - Component.model_fields.keys())}
    parameters, takes_more = named_parameters(constructor)
    fields: dict[str, Any] = {}
    for key, p in parameters.items():
        if group == "scheduler" and key in RUN_LENGTH:
            p = p.replace(annotation=_RUN_LENGTH, default=None)
        if key not in skipped:
            default = ... if p.default is p.empty else p.default
            fields[_field_name(base, key)] = p.annotation, Field(default, alias=key)
    if base is Model:
        from eqprop.network import ACTIVATIONS  # loads torch

        known: Any = Literal[tuple(ACTIVATIONS)]
        doc = Doc("of every layer but the input (auto: what suits the energy and the layers)")
        fields["activation"] = (Annotated[Literal["auto"] | known, doc], ...)
        doc = Doc("of the output (null: as the others, or what suits)")
        fields["output_activation"] = (Annotated[known | None, doc], None)
    name: str = getattr(constructor, "__name__", group)
    more = {"extra": "allow"} if takes_more else {}
    return create_model(name, __base__=base, __cls_kwargs__=more, **fields)


def _field_name(base: type[Component], key: str) -> str:
    """A name that is free in pydantic's class: a key may be called ``copy``."""
    taken = hasattr(base, key) or key in Component.model_fields or key.startswith("_")
    return f"key_{key}" if taken else key
