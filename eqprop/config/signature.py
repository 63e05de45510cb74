"""The keys of a component, read from its constructor's annotated signature.

A key's type, range and description are written once, where the constructor takes it::

    def __init__(self, dt: Annotated[float, Gt(0), Doc("step size, in units of tau")] = 0.1)
"""

from __future__ import annotations

import functools
import inspect
import operator
import types
from collections import abc
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Lt, MinLen
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic import Strict as PydanticStrict
from typing_extensions import Doc

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

_Share = Annotated[float, Ge(0), Lt(1)]
_TORCH: dict[str, Any] = {
    "lr": Annotated[
        Positive | Annotated[list[Positive], MinLen(1)],
        Doc("step size, of all layers or of each from the first"),
    ],
    "betas": Annotated[tuple[_Share, _Share], Doc("decay of the means of gradient and square")],
    "eps": Annotated[float, Ge(0), Doc("added to the denominator")],
    "weight_decay": Annotated[float, Ge(0), Doc("strength of the L2 penalty")],
    "lr_decay": Annotated[float, Ge(0), Doc("lr is divided by 1 + lr_decay * steps so far")],
    "initial_accumulator_value": Annotated[float, Ge(0), Doc("where the sum of squares begins")],
    "momentum": Annotated[float, Ge(0), Doc("share of the last step that is kept")],
    "dampening": Annotated[float, Doc("share of the gradient left out of the momentum")],
    "nesterov": Annotated[bool, Doc("look ahead; needs momentum > 0 and dampening 0")],
    "amsgrad": Annotated[bool, Doc("divide by the largest second moment so far")],
    "eta_min": Annotated[float, Ge(0), Doc("the last rate")],
    "gamma": Annotated[float, Gt(0), Doc("factor on the rate")],
    "step_size": Annotated[int, Ge(1), Doc("scheduler steps between two changes")],
}
"""Ranges and descriptions that torch.optim's own annotations leave out."""

RUN_LENGTH = ("T_max", "total_steps")
"""Keys of schedules that are the run's length where they are left open."""
_RUN_LENGTH = Annotated[OptionalCount, Doc("scheduler steps (null: those of the whole run)")]

_PLAIN = (int, float, bool, str, type(None))
_CONTAINERS = (list, tuple, dict, abc.Sequence, abc.Mapping)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


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
    parameters, takes_more = _parameters(constructor)
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


def _parameters(constructor: Any) -> tuple[dict[str, inspect.Parameter], bool]:
    """The named parameters, annotated for pydantic, and whether any other is accepted.

    Those of the next constructor in line count where ``**kwargs`` are passed on, none as required.
    """
    is_class = inspect.isclass(constructor)
    lineage = [vars(kind) for kind in constructor.__mro__[:-1]] if is_class else []
    functions = [members["__init__"] for members in lineage if "__init__" in members]
    functions = functions if is_class else [constructor]
    found: dict[str, inspect.Parameter] = {}
    for function in functions:
        try:
            parameters = list(inspect.signature(function).parameters.values())[is_class:]
        except (TypeError, ValueError):  # written in C, without one
            break
        for parameter in parameters:
            if parameter.kind in _NAMED and parameter.name not in found:
                if function is not functions[0] and parameter.default is parameter.empty:
                    parameter = parameter.replace(default=None)
                annotation = _annotation(function, parameter)
                found[parameter.name] = parameter.replace(annotation=annotation)
        if not parameters or parameters[-1].kind is not inspect.Parameter.VAR_KEYWORD:
            return found, False
    return found, bool(functions)


def _annotation(function: Any, parameter: inspect.Parameter) -> Any:
    hint, default = parameter.annotation, parameter.default
    if getattr(function, "__module__", "").startswith("torch.optim"):
        # Adafactor's eps is a pair of other things
        kinds = tuple if parameter.name == "betas" else (int, float)
        usual = default is parameter.empty or isinstance(default, kinds)
        hint = _TORCH.get(parameter.name, hint) if usual else hint
    if hint is parameter.empty:
        return Any
    holder: Any = types.SimpleNamespace(__annotations__={"it": hint})
    names = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        hint = _checkable(get_type_hints(holder, globalns=names, include_extras=True)["it"])
    except Exception:  # a name that only type checkers see
        return Any
    bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    allows_null = bare is Any or type(None) in get_args(bare)
    return hint if allows_null or default is not None else hint | None


def _checkable(hint: Any) -> Any:
    """The annotation as YAML's values can be checked against it; what they cannot be is Any."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        plain = _checkable(arguments[0])
        kept = [extra for extra in arguments[1:] if plain is not Any or isinstance(extra, Doc)]
        return functools.reduce(lambda hint, extra: Annotated[hint, extra], kept, plain)
    if hint in _PLAIN or origin is Literal or hint is Ellipsis:
        return hint
    if origin in (Union, types.UnionType):
        members = [_checkable(member) for member in arguments]
        return Any if Any in members else functools.reduce(operator.or_, members)
    if hint in _CONTAINERS or origin in _CONTAINERS:
        parts = tuple(_checkable(argument) for argument in arguments)
        whole = (origin or hint)[parts] if parts else hint
        # YAML has no tuples
        return Annotated[whole, PydanticStrict(False)] if tuple in (hint, origin) else whole
    return Any
