"""Texts for people: the nearest existing name, and values as a person would write them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from eqprop.run.redact import redact

_LARGEST = 10**150  # its square is still a float
Leaf = tuple[str, Any]
_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that `name` was probably meant to be, or None.

    Nearest of all is a last part that exists once elsewhere (``lr``: ``optimizer.lr``). Else the
    last part is compared where the rest of a dotted key exists, and the whole where it does not.
    """
    names = list(dict.fromkeys(candidates))
    group, _, last = name.rpartition(".")
    elsewhere = [n for n in names if n.rpartition(".")[2] == last]
    if len(elsewhere) == 1:
        return elsewhere[0]
    beside = {n.rpartition(".")[2]: n for n in names if n.rpartition(".")[0] == group}
    if group and not beside:
        last, beside = name, {n: n for n in names if "." in n}
    folded = {n.lower(): whole for n, whole in beside.items()}
    swapped = [n for n in folded if sorted(n) == sorted(last.lower())]  # "td" for "dt"
    begun = [n for n in folded if len(last) > 2 and n.startswith(last.lower())]  # "rain" …
    close = swapped or difflib.get_close_matches(last.lower(), list(folded), n=1, cutoff=0.6)
    close = close or sorted(begun, key=len)
    return folded[close[0]] if close else None


def hint(name: str, candidates: Iterable[str]) -> str:
    """Return ``; did you mean X?`` or, with nothing near, what there is beside it."""
    names = sorted(set(candidates) - {name})
    near = nearest(name, names)
    if near is not None:
        return f"; did you mean {near}?"
    group = name.rpartition(".")[0]
    beside = [n for n in names if n.rpartition(".")[0] == group]
    beside = beside or [n for n in names if "." not in n]
    return f"; there are: {', '.join(beside)}" if beside else ""


def key_of(override: str) -> str:
    """The key that an override is about, without package and signs."""
    return override.split("=", 1)[0].lstrip("+~").partition("@")[0]


def quoted(text: str) -> str:
    """Return the text as one value in Hydra's override grammar."""
    if _PLAIN.fullmatch(text):
        return text
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', text)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f'"{escaped}"'.replace("${", "\\${")


def show(value: Any) -> str:
    """Return a value as one short line, in YAML's words for null and booleans."""
    return yaml_word(value) if value is None or isinstance(value, bool) else brief(repr(value))


def yaml_word(value: Any) -> str:
    """Return the value's text, in YAML's words for null and booleans."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def brief(text: str) -> str:
    """Return the text as one line of at most 60 characters."""
    return one_line(text, 60)


def one_line(text: object, limit: int | None = None) -> str:
    """Return the text on one line of at most ``limit`` characters, control characters escaped."""
    words = " ".join(str(text).split())
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def flatten(tree: Mapping[Any, Any], prefix: str = "", depth: int = 50) -> Iterator[Leaf]:
    """Yield the dotted key and value of every leaf; an empty mapping is a leaf.

    So is one below ``depth``: a YAML file can hold itself.
    """
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and depth:
            yield from flatten(value, path + ".", depth - 1)
        else:
            yield path, value


def plain(value: Any) -> Any:
    """Return a value as a number, a truth value, None or one short line without secrets."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return value if number(value) is not None and abs(value) < 2**53 else told(value)
    parts = (Mapping, list, tuple, set)
    if isinstance(value, (list, tuple)) and not any(isinstance(part, parts) for part in value):
        return told(f"[{', '.join(yaml_word(plain(part)) for part in value)}]")
    return f"({type(value).__name__})" if isinstance(value, parts) else told(value)


def told(value: Any) -> str:
    """Return a value as one line of at most 300 characters without secrets."""
    return one_line(_redacted(one_line(value)), 300)


def number(value: Any) -> float | None:
    """A number that one can compute with, or None: not NaN, a truth value or beyond 1e150."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if -_LARGEST < value < _LARGEST else None


_redacted = lru_cache(maxsize=1 << 14)(redact)  # the runs of a sweep say the same again and again
