"""The pages that people read, as blocks of code and single commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

from running import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```\s*$", re.DOTALL | re.MULTILINE)
_SNIPPET = re.compile(r'^ *--8<-- "([^"]+)"$', re.MULTILINE)
_INLINE = re.compile(r"`(python scripts/[^`]*)`")


class Block(NamedTuple):
    """A fenced block: where it begins, its language, and its text with snippets put in."""

    line: int
    language: str
    text: str
    is_file: bool  # a snippet and nothing else


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        body = dedent(match[3])
        whole = _SNIPPET.sub(lambda m: (ROOT / m[1]).read_text(encoding="utf-8"), body)
        line = text[: match.start()].count("\n") + 1
        yield Block(line, match[2], whole, _SNIPPET.fullmatch(body.strip()) is not None)


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a shell's block, one after another, as words; comments are left out."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                words.append(word)
            elif words:
                yield words
                words = []


def inline(page: Path) -> list[str]:
    """Commands in running text."""
    bare = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return [" ".join(command.split()) for command in _INLINE.findall(bare)]
