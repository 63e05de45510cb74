"""Texts for people: the nearest existing name, and values as a person would write them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from eqprop.run.redact import redact

_LONGEST = 60
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
    beside = {n.rpartition(".")[2]: n for n in names if n.rpartition(".")[0] == group}
    elsewhere = [n for n in names if n.rpartition(".")[2] == last]
    if group and not beside:
        beside = {n: n for n in names if "." in n}
        last = name
    if len(elsewhere) == 1:
        return elsewhere[0]
    close = _closest(last, beside)
    return None if close is None else beside[close]


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


def _closest(name: str, names: Iterable[str]) -> str | None:
    folded = {n.lower(): n for n in names}
    swapped = [n for n in folded if sorted(n) == sorted(name.lower())]  # "td" for "dt"
    close = swapped or difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def show(value: Any) -> str:
    """Return a value as one short line, in YAML's words for null and booleans."""
    return yaml_word(value) if value is None or isinstance(value, bool) else brief(_text(value))


def yaml_word(value: Any) -> str:
    """Return the value's text, in YAML's words for null and booleans."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def brief(text: str) -> str:
    """Return the text as one line of bounded length."""
    return one_line(text, _LONGEST)


def one_line(text: object, limit: int | None = None) -> str:
    """Return the text on one line of at most ``limit`` characters, control characters escaped."""
    try:
        words = " ".join(str(text).split())
    except ValueError:  # Python refuses to print whole numbers of thousands of digits
        return "a number of thousands of digits"
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
    if isinstance(value, (list, tuple)) and not any(map(_has_parts, value[:100])):
        words = [yaml_word(plain(part)) for part in value[:100]]
        return told(f"[{', '.join(words)}{', …' * (len(value) > 100)}]")
    return f"({type(value).__name__})" if _has_parts(value) else told(value)


def told(value: Any) -> str:
    """Return a value as one line of bounded length without secrets."""
    return one_line(_redacted(one_line(value)), 300)


def number(value: Any) -> float | None:
    """A number that one can compute with, or None: not NaN, a truth value or beyond 1e150."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if -_LARGEST < value < _LARGEST else None


@lru_cache(maxsize=1 << 14)  # the runs of a sweep say the same again and again
def _redacted(text: str) -> str:
    return redact(text)


def _has_parts(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple, set))


def _text(value: Any) -> str:
    try:
        return one_line(repr(value))
    except ValueError:
        return one_line(value)
