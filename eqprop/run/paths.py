"""Paths as people write them, and text files as their editors leave them."""

from __future__ import annotations

import codecs
import os
import re
from pathlib import Path

from eqprop.run.errors import ConfigError

_VARIABLE = re.compile(r"\$\w+")


def expanded(text: str, key: str = "") -> str:
    """The path with ``~``, ``$NAME`` and ``${NAME}`` replaced; a folder that is called so stays.

    Raises ConfigError where there is no such home or variable.
    """
    given = f"{key}={text}" if key else text
    found = os.path.expanduser(text)
    if found.startswith("~"):
        user = found.split("/")[0]
        raise ConfigError(f"{given}: {user} is nobody's home here; write ./{text} for a folder")
    if "$" not in found or _is_called_so(found):
        return found
    found = os.path.expandvars(found)
    if match := _VARIABLE.search(found):
        raise ConfigError(f"{given}: there is no environment variable {match[0][1:]}")
    return found


def _is_called_so(path: str) -> bool:
    parts = path.split("/")
    heads = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    return any("$" in head and os.path.exists(head) for head in heads)


def decoded(path: Path) -> str:
    """The text of a file in UTF-8 or, with its byte-order mark, UTF-16, without the mark.

    Raises ConfigError for any other encoding, OSError if it cannot be read.
    """
    data = path.read_bytes()
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"line {line} is not UTF-8 (byte 0x{data[error.start]:02x})"
        raise ConfigError(f"{path}: {what}; save the file as UTF-8") from error
