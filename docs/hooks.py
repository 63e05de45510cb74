"""What mkdocs calls while it builds: the pages of options and keys are made from the schema.

A page says where by ``<!-- configuration -->`` or ``<!-- experiments -->``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from eqprop.config.layers import SHORT
from eqprop.config.reference import Option, component, options
from eqprop.report.heads import LABELS

EXPERIMENT = "experiment"
HEADS = "|".join(LABELS)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page's Markdown with what is generated put in."""
    for marker, made in (("configuration", configuration), ("experiments", experiments)):
        mark = f"<!-- {marker} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, "\n".join(made()))
    return markdown


def configuration() -> Iterator[str]:
    """Every group with its options and their keys, in the order in which a run is composed."""
    groups: dict[str, list[Option]] = {}
    for option in options():
        groups.setdefault(option.group, []).append(option)
    (top,) = groups.pop("")
    summaries = dict(re.findall(r"^  - (\w+): \w+ *# (.*)$", top.text, re.MULTILINE))
    own = tuple(key for key in top.keys or () if not key.name.startswith("hydra."))
    yield from ["## The run itself", "", *table([top._replace(keys=own)])]
    for group in sorted(groups, key=lambda name: [*summaries, name].index(name)):
        if group == EXPERIMENT:
            continue
        yield from ["", f"## {group}", ""]
        if group in summaries:
            yield from [sentence(summaries[group].partition(":")[0]), ""]
        yield from list_of(groups[group])
        yield from table(option for option in groups[group] if option.keys)
        if group == "network":
            yield from edges()
        yield from files(option for option in groups[group] if option.keys is None)
    rest = tuple(key for key in top.keys or () if key not in own)
    yield from ["", "## hydra", "", "Hydra's own part: where a run writes and what it prints.", ""]
    yield from table([top._replace(keys=rest)])


def experiments() -> Iterator[str]:
    """Every experiment: its command, and its file."""
    for option in options():
        if option.group == EXPERIMENT:
            about = re.sub(rf" (?=(?:{HEADS}):)", "  \n", option.about)
            yield from [f"## {option.name}", "", f"`{option.command}`", "", about, ""]
            yield from files([option])


def list_of(group: Iterable[Option]) -> Iterator[str]:
    """A table of a group's options: what each is, and a command that uses it."""
    yield from ["| option | | for example |", "|---|---|---|"]
    for option in group:
        command = re.sub(r" {3,}\(.*", "", option.command).removeprefix("python scripts/train.py ")
        yield f"| `{option.name}` | {cell(sentence(option.about))} | {code(command)} |"
    yield ""


def table(group: Iterable[Option]) -> Iterator[str]:
    """A table of the keys of a group; what options share stands there once."""
    group = list(group)
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for option in group:
        for key in option.keys or ():
            rows.setdefault((key.name, key.allowed, key.meaning), {})[option.name] = key.default
    names = [name for name, _, _ in rows]
    if not rows:
        return
    yield from ["| key | value | default | meaning |", "|---|---|---|---|"]
    by_name = sorted(rows.items(), key=lambda row: names.index(row[0][0]))
    for (name, allowed, meaning), defaults in by_name:
        only = "" if len(defaults) == len(group) else f"<br>of {', '.join(defaults)}"
        yield f"| {code(name)}{only} | {cell(allowed)} | {each(defaults)} | {cell(meaning)} |"
    yield ""


def each(defaults: dict[str, str]) -> str:
    """The default of most options, then each other one with the options that have it."""
    by_value: dict[str, list[str]] = {}
    for option, value in defaults.items():
        by_value.setdefault(value, []).append(option)
    most, *others = sorted(by_value, key=lambda value: -len(by_value[value]))
    named = (f"{code(value)} ({', '.join(by_value[value])})" for value in others)
    return ", ".join([code(most), *named])


def edges() -> Iterator[str]:
    """The keys of what an entry of ``model.hidden`` or ``model.skips`` may be."""
    yield from ["### Edges", "", "A mapping in `model.hidden` or `model.skips`; a skip also has"]
    yield from ["`from`, `to` and `gain`: see [Networks](networks.md#writing-one).", ""]
    for short, (target, first) in SHORT.items():
        keys = [k._replace(name=short) if k.name == first else k for k in component("edge", target)]
        yield from table([Option("", short, "", "", "", tuple(keys))])


def files(group: Iterable[Option]) -> Iterator[str]:
    """Option files as they are, folded; their comments explain each key."""
    for option in group:
        place = f"conf/{option.group}/{option.name}.yaml"
        yield from [f'??? abstract "{place}"', "", "    ```yaml"]
        yield from (f"    {line}".rstrip() for line in option.text.splitlines())
        yield from ["    ```", ""]


def sentence(words: str) -> str:
    """The words with a capital letter and a full stop."""
    whole = words[:1].upper() + words[1:]
    return whole if whole.endswith(".") or not whole else f"{whole}."


def code(text: str) -> str:
    """Text in code's letters in a cell; nothing for nothing."""
    return "`" + text.replace("|", "\\|") + "`" if text else ""


def cell(text: str) -> str:
    """Text in a cell of a table, where nothing but `code` is taken for Markdown or HTML."""
    return re.sub(r"(`[^`]*`)|[\\*_|<{]", lambda m: m[1] or f"&#{ord(m[0])};", text)
