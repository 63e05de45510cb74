"""Every option of every group: the command that uses it, its keys, what each may be and means.

The keys of a component, with types, ranges and descriptions, are those of its constructor. The
runner's own keys have their types in the schema and their meaning beside them in the option file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from pydantic import BaseModel
from typing_extensions import Doc

from eqprop.config.explain import describe
from eqprop.config.folder import conf_dir
from eqprop.config.schema import Config
from eqprop.config.signature import component_type
from eqprop.config.targets import locate
from eqprop.run.errors import ConfigError
from eqprop.run.text import plain, yaml_word

_ARTICLE = re.compile(r"(?<!each )\ba (?=whole|number|list|path|mapping)")
_LINE = re.compile(r"( *)([\w()]+):(?: +([^#]*?))?(?: +# (.*))?$")
_RANGE = re.compile(r"\b(numbers?|lists?|texts?|null|true|one of|fraction|folder|mapping|GiB)\b")


class Key(NamedTuple):
    """A key by its whole name, what it may be, what it is where nobody sets it, what it means."""

    name: str
    allowed: str
    default: str
    meaning: str


class Line(NamedTuple):
    """The value of a key and the comment beside it, as a file writes them."""

    value: str
    comment: str


class Option(NamedTuple):
    """An option of a group; ``keys`` are None where it is a set-up of keys of other groups."""

    group: str
    name: str
    text: str
    command: str
    about: str
    keys: tuple[Key, ...] | None


def options() -> Iterator[Option]:
    """Every option file of every group, and ``config.yaml`` itself, whose group is empty."""
    for path in sorted(conf_dir().rglob("*.yaml")):
        group = path.parent.relative_to(conf_dir()).as_posix().removeprefix(".")
        text = path.read_text(encoding="utf-8")
        package, command, about = _head(text)
        content: Any = OmegaConf.to_container(OmegaConf.load(path))
        content.pop("defaults", None)
        for part in reversed(group.split("/") if group else []):
            content = {part: content}
        top = group.replace("/", ".")
        texts = {f"{top}.{key}".strip("."): line for key, line in _texts(text).items()}
        keys = None if package else tuple(_keys("", Config, content, texts))
        yield Option(group, path.stem, text, command, about, keys)


def component(group: str, target: str) -> tuple[Key, ...]:
    """The keys of a class that no option file names, such as an edge."""
    return tuple(_keys("", component_type(group, locate(target)), {}, {}))


def told(kind: type[BaseModel]) -> dict[str, tuple[str, str]]:
    """What each key of a component may be, empty where anything, and its description if any."""
    found = {}
    for name, field in kind.model_fields.items():
        docs = [extra.documentation for extra in field.metadata if isinstance(extra, Doc)]
        allowed = field.description or describe(field.annotation, field.metadata)
        bare = allowed == "a value" and docs
        found[field.alias or name] = (
            "" if bare else _ARTICLE.sub("", allowed),
            docs[0] if docs else "",
        )
    return found


def _keys(
    path: str, kind: type[BaseModel] | None, given: Mapping[str, Any], texts: Mapping[str, Line]
) -> Iterator[Key]:
    """The keys below ``path``: those that are given, then the described ones that are not."""
    known = told(kind) if kind is not None else {}
    described = [name for name, (_, meaning) in known.items() if meaning]
    for name in dict.fromkeys([*given, *described]):
        if name == "_target_":
            continue
        whole, value = f"{path}.{name}".strip("."), given.get(name)
        allowed, meaning = known.get(name, ("", ""))
        raw, comment = texts.get(whole, Line("", ""))
        if not meaning:
            allowed, meaning = _split(comment, allowed)
        if name not in given:
            raw = _default(kind, name)
        if meaning:
            yield Key(whole, allowed, raw, meaning)
        if isinstance(value, Mapping):
            yield from _keys(whole, _kind(whole, value, kind), value, texts)


def _kind(
    path: str, value: Mapping[str, Any], outer: type[BaseModel] | None
) -> type[BaseModel] | None:
    """What the keys of a mapping at ``path`` are checked by: a constructor, a section, nothing."""
    if "_target_" in value:
        group = {"hydra.launcher": "launcher"}.get(path, path.rpartition(".")[0] or path)
        try:
            return component_type(group, locate(str(value["_target_"])))
        except ConfigError:  # of an extra that is not installed
            return None
    field = outer.model_fields.get(path.rpartition(".")[2]) if outer is not None else None
    section = field.annotation if field is not None else None
    return section if isinstance(section, type(BaseModel)) else None


def _default(kind: type[BaseModel] | None, name: str) -> str:
    fields = kind.model_fields.items() if kind is not None else ()
    (field,) = (field for key, field in fields if name == (field.alias or key))
    return "" if field.is_required() else yaml_word(plain(field.get_default()))


def _split(comment: str, allowed: str) -> tuple[str, str]:
    """What a key may be and means, by its comment; that begins with a range where it is long."""
    head, colon, tail = ([*re.split(r"(: )(?!: )", comment, maxsplit=1), "", ""])[:3]
    is_range = colon and _RANGE.search(head) and head.count("(") == head.count(")")
    return (head.strip(), tail) if is_range else (allowed, comment)


def _head(text: str) -> tuple[str, str, str]:
    """The package, the command and what else is said before the first key and at its class."""
    package, command, about = "", "", []
    for line in text.splitlines():
        if line.startswith("# @package "):
            package = line.split()[2]
        elif line.startswith("# python "):
            command = command or line.removeprefix("# ")
        elif line.startswith("#"):
            about.append(line.removeprefix("#").strip())
        elif line.startswith("_target_:"):
            about.insert(0, line.partition(" # ")[2].removeprefix("class: ").strip() + ".")
        elif line and not line.startswith(("defaults:", " ")):
            break
    return package, command, " ".join(filter(None, about))


def _texts(text: str) -> dict[str, Line]:
    """Value and comment of each key as they are written, by its dotted name in the file."""
    found, parents = {}, list[tuple[int, str]]()
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None or match[2] == "defaults":
            continue
        parents = [(indent, name) for indent, name in parents if indent < len(match[1])]
        parents.append((len(match[1]), match[2]))
        whole = ".".join(name for _, name in parents)
        found[whole] = Line((match[3] or "").strip(), match[4] or "")
    return found
