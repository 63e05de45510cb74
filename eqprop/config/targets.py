"""Somebody else's `_target_`: find it, and check the keys it is given against its signature.

What it is given by the runner rather than by the configuration is listed here too (`RUNNER`).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from eqprop.run.errors import ConfigError
from eqprop.run.text import hint, nearest, one_line, show

RUNNER: dict[str, frozenset[str]] = {
    "model": frozenset({"dimensions", "c_energy", "batch_size", "phi"}),
    "cost": frozenset({"beta"}),
    "optimizer": frozenset({"params"}),
    "dataset": frozenset({"root"}),
    "launcher": frozenset({"terms", "capacity", "folder"}),
}
"""The arguments of each group's targets that the runner itself supplies."""

CONSUMED: dict[str, frozenset[str]] = {"model": frozenset({"hidden", "activation"})}
"""The keys of each group that the runner uses and does not hand on."""

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def locate(target: str) -> Any:
    """Import what a dotted path names: a class, a class in a class, or a function.

    Raises:
        ConfigError: with the reason alone, where it cannot be imported or is not there.
    """
    parts = target.split(".")
    if not all(part.isidentifier() for part in parts):
        raise ConfigError("not a dotted path of names")
    found, used = _import_longest(parts)
    for i, part in enumerate(parts[used:], start=used):
        try:
            found = getattr(found, part)
        except Exception as error:  # a module's own lazy __getattr__ may raise anything
            what = "" if isinstance(error, AttributeError) else f" ({_reason(error)})"
            raise ConfigError(f"{'.'.join(parts[:i])} has no {part}{what}") from error
    if not callable(found):
        raise ConfigError("neither a class nor a function")
    return found


def problems(
    group: str, path: str, options: Mapping[str, Any], known: Collection[str]
) -> Iterator[str]:
    """Yield a line for everything that a foreign target cannot be made from.

    Args:
        group: which runner-supplied arguments it gets.
        path: the dotted key where it stands, as the person knows it.
        options: its keys and values with `_target_`.
        known: the targets of our own in this group, for the nearest name.
    """
    target = options["_target_"]
    try:
        signature = _signature(locate(target))
    except ConfigError as error:
        near = nearest(target, known)
        tail = f"; did you mean {near}?" if near else ""
        yield f"{path}._target_={show(target)}: cannot be used: {error}{tail}"
        return
    if signature is not None:
        yield from _unfit(group, path, options, signature)


def _unfit(
    group: str, path: str, options: Mapping[str, Any], signature: inspect.Signature
) -> Iterator[str]:
    parameters = signature.parameters.values()
    supplied = RUNNER.get(group, frozenset())
    consumed = CONSUMED.get(group, frozenset())
    allowed = {p.name for p in parameters if p.kind in _NAMED} - supplied
    takes_anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    for key, value in options.items():
        dotted = f"{path}.{key}"
        if key == "_target_" or key in consumed:
            continue
        if key in supplied:
            yield f"{dotted}={show(value)}: the runner sets '{key}' itself; leave it out"
        elif key not in allowed and not takes_anything:
            names = {f"{path}.{name}" for name in allowed | consumed}
            yield f"{dotted}={show(value)}: unknown key '{dotted}'{hint(dotted, names)}"
    for parameter in parameters:
        needed = parameter.kind in _NAMED and parameter.default is inspect.Parameter.empty
        if needed and parameter.name not in {*supplied, *options}:
            key = f"{path}.{parameter.name}"
            yield f"missing key '{key}': {show(options['_target_'])} needs it"


def _import_longest(parts: list[str]) -> tuple[Any, int]:
    for used in range(len(parts), 0, -1):
        name = ".".join(parts[:used])
        try:
            return importlib.import_module(name), used
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise ConfigError(f"importing {name} failed: {_reason(error)}") from error
        except (Exception, SystemExit) as error:  # it is somebody else's code that runs here
            raise ConfigError(f"importing {name} failed: {_reason(error)}") from error
    raise ConfigError(f"there is no module {parts[0]}")


def _signature(found: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(found)
    except (TypeError, ValueError):  # written in C, without one
        return None


def _reason(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}")
