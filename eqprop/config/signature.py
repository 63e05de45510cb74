"""The keys of a component, read from its constructor's annotated signature.

A key's type, range and description are written once, where the constructor takes it::

    def __init__(self, dt: Annotated[float, Gt(0), Doc("step size, in units of tau")] = 0.1)

The same code reads the constructors of this package, of torch.optim and of anybody else.
"""

from __future__ import annotations

import functools
import inspect
import operator
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Lt, MinLen
from pydantic import Field, create_model
from pydantic import Strict as PydanticStrict
from typing_extensions import Doc

from eqprop.config.fields import Component

RUNNER: dict[str, frozenset[str]] = {
    "model": frozenset({"dimensions", "c_energy", "batch_size", "phi"}),
    "cost": frozenset({"beta"}),
    "optimizer": frozenset({"params"}),
    "dataset": frozenset({"root"}),
    "dynamics": frozenset({"network"}),
    "edge": frozenset({"in_shape"}),
    "launcher": frozenset({"capacity", "folder"}),
}
"""The arguments of each group's constructors that the runner itself supplies."""

_Share = Annotated[float, Ge(0), Lt(1)]
_OPTIMIZER: dict[str, Any] = {
    "lr": Annotated[float, Gt(0), Doc("step size")],
    "betas": Annotated[
        tuple[_Share, _Share],
        Doc("decay of the running mean of the gradient and of its square, a step"),
    ],
    "eps": Annotated[float, Ge(0), Doc("added to the denominator")],
    "weight_decay": Annotated[float, Ge(0), Doc("strength of the L2 penalty")],
    "lr_decay": Annotated[
        float, Ge(0), Doc("the step size is divided by 1 + lr_decay * steps so far")
    ],
    "initial_accumulator_value": Annotated[
        float, Ge(0), Doc("where the sum of squared gradients begins")
    ],
    "momentum": Annotated[float, Ge(0), Doc("share of the last step that is kept")],
    "dampening": Annotated[float, Doc("share of the gradient left out of the momentum")],
    "nesterov": Annotated[bool, Doc("look ahead; needs momentum > 0 and dampening 0")],
    "amsgrad": Annotated[bool, Doc("divide by the largest second moment so far")],
}
"""Ranges and descriptions that torch.optim's own annotations leave out."""

_PLAIN = (int, float, bool, str, type(None))
_CONTAINERS = (list, tuple, dict, Sequence, Mapping)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Model(Component):
    """An energy: the runner itself uses these keys, and makes the layers from them."""

    hidden: Annotated[
        list[Annotated[int, Ge(1)] | dict[str, Any]],
        MinLen(1),
        Doc("the hidden layers: units of a dense one, or _target_ and keys of an edge into one"),
    ]
    activation: str


@functools.cache
def component_type(group: str, constructor: Any) -> type[Component]:
    """The type of a component's keys in ``group``, from its constructor's signature."""
    base = Model if group == "model" else Component
    skipped = {*RUNNER.get(group, ()), *(base.model_fields.keys() - Component.model_fields.keys())}
    parameters, takes_more = _parameters(constructor)
    fields: dict[str, Any] = {
        _field_name(base, key): (parameter.annotation, _field(parameter))
        for key, parameter in parameters.items()
        if key not in skipped
    }
    if base is Model:
        from eqprop.network import ACTIVATIONS  # loads torch

        doc = Doc("of every layer but the input")
        fields["activation"] = (Annotated[Literal[tuple(ACTIVATIONS)], doc], ...)
    more = {"extra": "allow"} if takes_more else {}
    name: str = getattr(constructor, "__name__", group)
    return create_model(name, __base__=base, __cls_kwargs__=more, **fields)


def _field_name(base: type[Component], key: str) -> str:
    """A name that is free in pydantic's class: a key may be called ``copy``."""
    taken = hasattr(base, key) or key in Component.model_fields or key.startswith("_")
    return f"key_{key}" if taken else key


def _field(parameter: inspect.Parameter) -> Any:
    if parameter.default is parameter.empty:
        return Field(alias=parameter.name)
    return Field(alias=parameter.name, default_factory=lambda: parameter.default)


def _parameters(constructor: Any) -> tuple[dict[str, inspect.Parameter], bool]:
    """The named parameters, annotated for pydantic, and whether any other is accepted.

    Where a class passes its ``**kwargs`` on, those of the next constructor in its line count too.
    Whether it fills some of them in itself cannot be seen, so none of these is required.
    """
    functions, is_class = [constructor], inspect.isclass(constructor)
    if is_class:
        lineage = [vars(kind) for kind in constructor.__mro__[:-1]]
        functions = [members["__init__"] for members in lineage if "__init__" in members]
        if not functions:  # it is made without arguments
            return {}, False
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
    return found, True


def _annotation(function: Any, parameter: inspect.Parameter) -> Any:
    hint, default = parameter.annotation, parameter.default
    if getattr(function, "__module__", "").startswith("torch.optim"):
        # Adafactor's eps is a pair of other things
        usual = isinstance(default, tuple if parameter.name == "betas" else (int, float))
        hint = _OPTIMIZER.get(parameter.name, hint) if usual else hint
    if hint is parameter.empty:
        return Any
    holder: Any = types.SimpleNamespace(__annotations__={"it": hint})
    names = getattr(inspect.unwrap(function), "__globals__", {})
    try:
        hint = _checkable(get_type_hints(holder, globalns=names, include_extras=True)["it"])
    except Exception:  # a name that only type checkers see
        return Any
    return hint | None if default is None and not _allows_null(hint) else hint


def _allows_null(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        return _allows_null(get_args(hint)[0])
    return hint is Any or type(None) in get_args(hint)


def _checkable(hint: Any) -> Any:
    """The annotation as YAML's values can be checked against it; what they cannot be is Any."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        inner = plain = _checkable(arguments[0])
        for extra in arguments[1:]:
            if plain is not Any or isinstance(extra, Doc):
                inner = Annotated[inner, extra]
        return inner
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
