"""One line for each thing that pydantic found wrong: key, value, what is allowed, nearest name."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, Predicate
from pydantic import BaseModel, ValidationError

from eqprop.run.errors import ConfigError
from eqprop.run.text import flatten, hint, nearest, show

_SIGNS = {Gt: (">", "gt"), Ge: (">=", "ge"), Lt: ("<", "lt"), Le: ("<=", "le")}
_NAMES = {int: "a whole number", float: "a number", str: "text", dict: "a mapping", Any: "a value"}

Model = TypeVar("Model", bound=BaseModel)


class MistakesError(ValueError):
    """Raised by a validator that has the lines to show already."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__(*lines)


def lines(
    kind: type[BaseModel],
    path: str,
    given: Mapping[str, Any],
    error: ValidationError,
    keys: Callable[[], Collection[str]],
) -> Iterator[tuple[str, str]]:
    """Yield (dotted key, line) once for each key of `given` that is wrong.

    `given` stands at `path` and was checked by `kind`, with this `error`; `keys` returns every
    dotted key that exists, for the nearest name.
    """
    seen = set()
    found = error.errors(include_url=False, include_input=False)
    # a key that is mistyped is missing under its right name, too
    for detail in sorted(found, key=lambda detail: detail["type"] == "missing"):
        place = tuple(map(str, detail["loc"]))
        part, values, top = kind, given, path
        while len(place) > 1 and (inner := _part(part, place[0])) is not None:
            part, values, top = inner, values[place[0]], _join(top, place[0])
            place = place[1:]
        key = _join(top, place[0])
        if key in seen:
            continue
        seen.add(key)
        if isinstance(raised := detail.get("ctx", {}).get("error"), MistakesError):
            yield from ((key, line) for line in raised.args)
        elif detail["type"] == "extra_forbidden":
            beside = [_join(top, f.alias or name) for name, f in part.model_fields.items()]
            yield key, unknown_key(key, values[place[0]], [*beside, *keys()])
        elif place[0] not in values:
            yield key, f"missing key '{key}': it must be {_allowed(part, place[0])}"
        else:
            yield key, _wrong_value(part, key, place[0], values[place[0]])


def validated(kind: type[Model], path: str, given: Mapping[str, Any]) -> Model:
    """Return the mapping at the dotted ``path`` as a ``kind``.

    Raises:
        ConfigError: one line on the first mistake.
    """
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        keys = [f"{path}.{key}" for key in kind.model_fields]
        _, line = next(lines(kind, path, given, error, lambda: keys))
        raise ConfigError(line) from error


def unknown_key(key: str, value: Any, keys: Collection[str]) -> str:
    """Return the line for a key that does not exist; of a mapping, its first leaf is named."""
    known = [name for name in keys if name != key and not name.startswith(f"{key}.")]
    if isinstance(value, Mapping) and value:
        key, value = next(flatten(value, f"{key}."))
    return f"{key}={show(value)}: unknown key '{key}'{hint(key, known)}"


def describe(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Return what a value may be by its annotation; it completes "it must be …"."""
    words = list(dict.fromkeys(_alternatives(annotation, metadata)))
    if get_origin(annotation) is Literal and len(words) > 2:
        return f"one of {', '.join(words)}"
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _part(kind: type[BaseModel], key: str) -> type[BaseModel] | None:
    annotation: Any = kind.model_fields[key].annotation if key in kind.model_fields else None
    return annotation if isinstance(annotation, type(BaseModel)) else None


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


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
    near = nearest(value, words) if isinstance(value, str) else None
    tail = f"; did you mean {near}?" if near else ""
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
        least = next((extra.min_length for extra in metadata if isinstance(extra, MinLen)), 0)
        each = f", each {describe(arguments[0])}" if arguments else ""
        return ["a list" + (f" of at least {least}" if least else "") + each]
    return [_NAMES.get(kind, "a mapping") + _range(metadata)]


def _range(metadata: Sequence[Any]) -> str:
    bounds, lengths, more = [], [], []
    for extra in metadata:
        if type(extra) in _SIGNS:
            sign, name = _SIGNS[type(extra)]
            bounds.append(f"{sign} {_number(getattr(extra, name))}")
        elif isinstance(extra, MinLen):
            lengths.append(f"at least {extra.min_length}")
        elif isinstance(extra, MaxLen):
            lengths.append(f"at most {extra.max_length}")
        elif isinstance(extra, Predicate):  # its name says what it asks for
            more.append(getattr(extra.func, "__name__", "").replace("_", " "))
    length = f"of {' and '.join(lengths)} characters" if lengths else ""
    return "".join(f" {words}" for words in (" and ".join(bounds), length, *more) if words)


def _number(bound: Any) -> str:
    power = bound.bit_length() - 1 if isinstance(bound, int) and bound > 2**20 else 0
    return f"2^{power}" if power and bound == 2**power else str(bound)
