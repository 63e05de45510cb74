"""Words for error messages: the nearest existing name, a value as a person would write it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_LONGEST = 60


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


def _closest(name: str, names: Iterable[str]) -> str | None:
    folded = {n.lower(): n for n in names}
    swapped = [n for n in folded if sorted(n) == sorted(name.lower())]  # "td" for "dt"
    close = swapped or difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def show(value: Any) -> str:
    """Return a value as one short line, in YAML's words for null and booleans."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return brief(_text(value))


def brief(text: str) -> str:
    """Return the text as one line of bounded length."""
    line = one_line(text)
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def one_line(text: object) -> str:
    """Return the text with every run of white space made one space and other controls escaped."""
    words = " ".join(str(text).split())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and value of every leaf; an empty mapping is a leaf."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, path + ".")
        else:
            yield path, value


def _text(value: Any) -> str:
    try:
        return one_line(repr(value))
    except ValueError:  # Python refuses to print whole numbers of thousands of digits
        return "a number of thousands of digits"
