"""Reading files that may be missing, torn, damaged or not meant for us, without ever failing."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from eqprop.run.files import one_line
from eqprop.run.redact import redact

MOST_BYTES = 64 * 2**20
"""What is read of one file, at most; the rest of a longer one is left out, and said so."""
_KEYS, _DEPTH, _LONGEST = 2000, 20, 300


def read_bytes(path: Path, problems: list[str], most: int = MOST_BYTES) -> bytes | None:
    """The file's first ``most`` bytes, None where there is none; ``problems`` gets what is odd."""
    try:
        with open(path, "rb") as file:
            found = file.read(most + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        problems.append(f"{path.name}: {error.strerror or error}")
        return None
    if len(found) > most:
        problems.append(f"{path.name}: only its first {most // 2**20} MiB are shown")
    return found[:most]


def read_object(path: Path, problems: list[str]) -> dict[str, Any] | None:
    """The JSON object in a file, or None."""
    found = read_bytes(path, problems)
    if found is None:
        return None
    value = parse(found)
    if not isinstance(value, dict):
        problems.append(f"{path.name}: {'is empty' if not found.strip() else 'is no JSON object'}")
        return None
    return value


def read_lines(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line; lines that hold none are left out.

    A last line without its end is a line being written. Others are counted in ``problems``.
    """
    lines = (read_bytes(path, problems) or b"").split(b"\n")
    found = [parse(line) for line in lines if line.strip()]
    whole = [value for value in found if isinstance(value, dict)]
    torn = bool(found) and bool(lines[-1].strip()) and not isinstance(found[-1], dict)
    wrong = len(found) - len(whole) - torn
    if wrong:
        problems.append(f"{path.name}: {wrong} line{'s' * (wrong > 1)} left out, no JSON object")
    return whole


def parse(text: bytes) -> Any:
    """What JSON text says, None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def read_yaml(path: Path, problems: list[str]) -> Any:
    """What a YAML file says in plain values, None where there is none that can be read."""
    found = read_bytes(path, problems, 2**20)
    if found is None:
        return None
    value = parse_yaml(found)
    if value is None and found.strip():
        problems.append(f"{path.name}: is no YAML")
    return value


def parse_yaml(text: bytes | str) -> Any:
    """What YAML text says in plain values, None where it is none."""
    import yaml

    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return None


def flatten(tree: Any) -> dict[str, Any]:
    """Dotted key → plain value of every leaf; of a tree beyond all measure, the first leaves."""
    flat: dict[str, Any] = {}

    def add(prefix: str, value: Any, depth: int) -> None:
        if len(flat) >= _KEYS:
            return
        if isinstance(value, Mapping) and value and depth < _DEPTH:
            for key, part in value.items():
                add(f"{prefix}.{text_of(key)}" if prefix else text_of(key), part, depth + 1)
        elif prefix:
            flat[prefix] = told(value)

    add("", tree, 0)
    return flat


def plain(value: Any) -> Any:
    """``value`` as a cell holds it: a number, a truth value, None or one short text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**53 else text_of(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (list, tuple)) and all(_is_leaf(part) for part in value[:100]):
        words = ["null" if part is None else text_of(plain(part)) for part in value[:100]]
        return text_of(f"[{', '.join(words)}{', …' * (len(value) > 100)}]")
    return text_of(value) if _is_leaf(value) else f"({type(value).__name__})"


def told(value: Any) -> Any:
    """The same, without secrets."""
    found = plain(value)
    return _redacted(found) if isinstance(found, str) else found


@lru_cache(maxsize=1 << 14)
def _redacted(text: str) -> str:  # runs of a sweep say the same again and again
    return redact(text)


def number(value: Any) -> float | None:
    """A finite number, or None: truth values, texts, NaN and numbers beyond float are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def text_of(value: Any) -> str:
    """One line of bounded length that UTF-8 can say."""
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        return readable(one_line(value, _LONGEST))
    except ValueError:  # Python refuses to print whole numbers of thousands of digits
        return "a number of thousands of digits"


def readable(name: str) -> str:
    """A file's name, whatever bytes it is made of, as text that UTF-8 can say."""
    return os.fsencode(name).decode("utf-8", "replace") if _has_surrogates(name) else name


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)


def _is_leaf(value: Any) -> bool:
    return not isinstance(value, (Mapping, list, tuple, set))
