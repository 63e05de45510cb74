"""What a job prints: a file in its folder that cannot fill the disk."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from eqprop.run.files import write_atomically
from eqprop.run.redact import redact
from eqprop.sweep.outcome import CONSOLE

MOST = 1 << 20
"""Bytes that are kept; of a job that prints more, the newest half of that."""

LEFT_OUT = b"[what came before is left out]\n"


def open_console(folder: Path) -> int:
    """Open the console of the job in ``folder`` for its process; what it writes is appended."""
    return os.open(folder / CONSOLE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)


def trim(folder: Path, most: int = MOST) -> None:
    """Drop the oldest lines of a console that has become too long; its writer goes on behind."""
    path = folder / CONSOLE
    with suppress(OSError):
        if path.stat().st_size <= most:
            return
        with open(path, "r+b") as file:
            file.seek(-(most // 2), os.SEEK_END)
            kept = file.read()
            while more := file.read():  # its writer does not wait for us
                kept = (kept + more)[-most // 2 :]
            file.truncate(0)
        with open(path, "ab") as file:
            file.write(LEFT_OUT + kept.partition(b"\n")[2])


def close(folder: Path) -> None:
    """Take secrets out of a console that nobody writes any more."""
    trim(folder)
    path = folder / CONSOLE
    with suppress(OSError):
        text = path.read_text(encoding="utf-8", errors="replace")
        clean = "\n".join(redact(line) for line in text.split("\n"))
        if clean != text:
            write_atomically(path, clean.encode())
