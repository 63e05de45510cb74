"""One line for each thing that pydantic found wrong: key, value, what is allowed, nearest name."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from eqprop.run.text import flatten, hint, nearest, show


def lines(
    kind: type[BaseModel],
    path: str,
    given: Mapping[str, Any],
    error: ValidationError,
    keys: Callable[[], Collection[str]],
) -> Iterator[tuple[str, str]]:
    """Yield (key in `given`, line) once for each of its keys that is wrong.

    Args:
        kind: the type that `given` was checked by.
        path: where `given` stands, dotted; empty for the whole configuration.
        given: the mapping that was checked.
        error: what pydantic found.
        keys: returns every dotted key that exists, for the nearest name.
    """
    seen = set()
    for detail in error.errors(include_url=False, include_input=False):
        key = str(detail["loc"][0])
        if key in seen:
            continue
        seen.add(key)
        dotted = f"{path}.{key}" if path else key
        if detail["type"] == "extra_forbidden":
            yield key, unknown_key(dotted, given[key], keys())
        elif detail["type"] == "missing":
            yield key, f"missing key '{dotted}': it must be {_allowed(kind, key)}"
        else:
            near = _near_choice(given[key], _choices(detail))
            allowed = _allowed(kind, key, _choices(detail))
            yield key, f"{dotted}={show(given[key])}: must be {allowed}{near}"


def unknown_key(key: str, value: Any, keys: Collection[str]) -> str:
    """Return the line for a key that does not exist; of a mapping, its first leaf is named."""
    if isinstance(value, Mapping) and value:
        key, value = next(flatten(value, f"{key}."))
    return f"{key}={show(value)}: unknown key '{key}'{hint(key, keys)}"


def _field(kind: type[BaseModel], key: str) -> FieldInfo | None:
    for name, field in kind.model_fields.items():
        if key == (field.alias or name):
            return field
    return None


def _allowed(kind: type[BaseModel], key: str, choices: list[str] | None = None) -> str:
    field = _field(kind, key)
    if field is None:
        return "something else"
    if field.description:
        return field.description
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
        return f"one of the group's options, {key}=…, or a mapping like theirs"
    return "one of " + ", ".join(
        choices or [str(c) for c in getattr(field.annotation, "__args__", ())]
    )


def _choices(detail: Any) -> list[str]:
    if detail["type"] != "literal_error":
        return []
    return re.findall(r"'([^']*)'", detail["ctx"]["expected"])


def _near_choice(value: Any, choices: list[str]) -> str:
    near = nearest(value, choices) if isinstance(value, str) else None
    return f"; did you mean {near}?" if near else ""
