"""One line for each thing that pydantic found wrong: key, value, what is allowed, nearest name."""

from __future__ import annotations

import math
import types
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from annotated_types import Predicate
from pydantic import BaseModel, ValidationError

from eqprop.run.errors import ConfigError
from eqprop.run.text import flatten, hint, nearest, one_line, show

_ALSO_KNOWN_AS = {"gpu": "cuda", "ce": "cross_entropy", "squared_error": "mse", "off": "none"}
_ALSO_KNOWN_AS |= {"false": "none", "disabled": "none", "wandb": "wandb_offline", "mps": "cpu"}
_LIMITS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_LIMITS |= {"min_length": "of at least", "max_length": "at most"}
_NAMES = {int: "a whole number", float: "a number", str: "text", dict: "a mapping", Any: "a value"}

Model = TypeVar("Model", bound=BaseModel)


def validated(
    kind: type[Model], path: str, given: Mapping[str, Any], keys: Collection[str] = ()
) -> Model:
    """Return the mapping at a dotted path as a ``kind``, or refuse it; ``keys`` are all known."""
    try:
        return kind.model_validate(given, context=keys)
    except ValidationError as error:
        refuse(list(_lines(kind, path, given, error, keys)))
        raise


def refuse(mistakes: Sequence[str]) -> None:
    """Raise ConfigError on the first mistake, with how many more there are, if there is one."""
    if mistakes:
        more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
        raise ConfigError(one_line(mistakes[0]) + more)


def _lines(
    kind: type[BaseModel], path: str, given: Any, error: ValidationError, keys: Collection[str]
) -> Iterator[str]:
    """Yield a line once for each key of `given` that is wrong."""
    seen = set()
    found = error.errors(include_url=False, include_input=False)
    # a key that is mistyped is missing under its right name, too
    for detail in sorted(found, key=lambda detail: detail["type"] == "missing"):
        place = tuple(map(str, detail["loc"]))
        part, values, top = kind, given, f"{path}." if path else ""
        while len(place) > 1 and (inner := _part(part, place[0])) is not None:
            part, values, top = inner, values[place[0]], f"{top}{place[0]}."
            place = place[1:]
        key = f"{top}{place[0]}"
        if key in seen:
            continue
        seen.add(key)
        if detail["type"] == "extra_forbidden":
            beside = [f"{top}{f.alias or name}" for name, f in part.model_fields.items()]
            yield unknown_key(key, values[place[0]], [*beside, *keys])
        elif place[0] not in values:
            yield f"missing key '{key}': it must be {_allowed(part, place[0])}"
        else:
            yield _wrong_value(part, key, place[0], values[place[0]])


def meant(name: str, candidates: Iterable[str], path: str = "") -> str:
    """Return ``; did you mean X?``, or nothing where none is near; ``path`` stands before X."""
    names = list(candidates)
    usual = _ALSO_KNOWN_AS.get(name.lower())
    near = usual if usual in names else nearest(name, names)
    return f"; did you mean {path}{near}?" if near else ""


def unknown_key(key: str, value: Any, keys: Collection[str]) -> str:
    """Return the line for a key that does not exist; of a mapping, its first leaf is named."""
    known = [name for name in keys if name != key and not name.startswith(f"{key}.")]
    if isinstance(value, Mapping) and value:
        key, value = next(flatten(value, f"{key}."))
    return f"{key}={show(value)}: unknown key '{key}'{hint(key, known)}"


def describe(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Return what a value may be by its annotation; it completes "it must be …"."""
    *others, last = dict.fromkeys(_alternatives(annotation, metadata))
    if get_origin(annotation) is Literal and len(others) > 1:
        return f"one of {', '.join([*others, last])}"
    return f"{', '.join(others)} or {last}" if others else last


def _part(kind: type[BaseModel], key: str) -> type[BaseModel] | None:
    annotation: Any = kind.model_fields[key].annotation if key in kind.model_fields else None
    return annotation if isinstance(annotation, type(BaseModel)) else None


def _allowed(kind: type[BaseModel], key: str) -> str:
    for name, field in kind.model_fields.items():
        if key == (field.alias or name):
            return field.description or describe(field.annotation, field.metadata)
    return "something else"


def _wrong_value(kind: type[BaseModel], dotted: str, key: str, value: Any) -> str:
    allowed = _allowed(kind, key)
    if isinstance(value, float) and not math.isfinite(value):
        allowed = allowed.replace("a number", "a finite number", 1)
    words = allowed.removeprefix("one of ").replace(" or ", ", ").split(", ")
    tail = meant(value, words) if isinstance(value, str) else ""
    return f"{dotted}={show(value)}: must be {allowed}{tail}"


def _alternatives(annotation: Any, metadata: Sequence[Any]) -> list[str]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _alternatives(arguments[0], [*arguments[1:], *metadata])
    if origin in (Union, types.UnionType):
        return [word for member in arguments for word in _alternatives(member, ())]
    if origin is Literal:
        return list(map(str, arguments))
    if annotation is type(None):
        return ["null"]
    if annotation is bool:
        return ["true", "false"]
    if isinstance(annotation, type(BaseModel)):
        return ["an option of its group, or a mapping like theirs"]
    kind = origin or annotation
    if kind is tuple and arguments and Ellipsis not in arguments:
        return [f"a list [{', '.join(map(describe, arguments))}]"]
    if kind in (list, tuple, Sequence):
        each = f", each {describe(arguments[0])}" if arguments else ""
        return ["a list" + _range(metadata) + each]
    unit = " characters" if kind is str and metadata else ""
    return [_NAMES.get(kind, "a mapping") + _range(metadata) + unit]


def _range(metadata: Sequence[Any]) -> str:
    held = [(extra, name) for extra in metadata for name in _LIMITS if hasattr(extra, name)]
    limits = [f"{_LIMITS[name]} {_number(getattr(extra, name))}" for extra, name in held]
    predicates = [extra.func for extra in metadata if isinstance(extra, Predicate)]
    # a predicate's name says what it asks for
    names = [getattr(func, "__name__", "").replace("_", " ") for func in predicates]
    return "".join(f" {words}" for words in (" and ".join(limits), *names) if words)


def _number(bound: Any) -> str:
    power = bound.bit_length() - 1 if isinstance(bound, int) and bound > 2**20 else 0
    return f"2^{power}" if power and bound == 2**power else str(bound)
