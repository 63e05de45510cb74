"""The keys of a component: the parameters of its constructor, annotated so that YAML is checked.

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
from pydantic import Strict as PydanticStrict
from typing_extensions import Doc

_Positive = Annotated[float, Gt(0)]
_Share = Annotated[float, Ge(0), Lt(1)]
_TORCH: dict[str, Any] = {
    "lr": Annotated[
        _Positive | Annotated[list[_Positive], MinLen(1)],
        Doc("step size, of all layers or of each from the first"),
    ],
    "betas": Annotated[tuple[_Share, _Share], Doc("decay of the means of gradient and square")],
    "eps": Annotated[float, Ge(0), Doc("added to the denominator")],
    "weight_decay": Annotated[float, Ge(0), Doc("strength of the weight decay")],
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

_PLAIN = (int, float, bool, str, type(None))
_CONTAINERS = (list, tuple, dict, abc.Sequence, abc.Mapping)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def named_parameters(constructor: Any) -> tuple[dict[str, inspect.Parameter], bool]:
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
