"""Files that are either the old one or the new one, never half of one."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path


def write_atomically(
    path: str | os.PathLike[str], data: bytes, before: Callable[[Path], None] | None = None
) -> None:
    """Write ``data`` to ``path``: a reader, or a crash, finds the whole old or the whole new file.

    ``before`` is given the flushed temporary file, which lies in the same folder, and may still
    refuse it by raising. Raises OSError, after removing the temporary file.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:32]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if before is not None:
            before(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    with contextlib.suppress(OSError):  # where the file system knows how to
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files of writers that were killed; nobody may be writing there."""
    with contextlib.suppress(OSError):
        for path in Path(folder).glob(".*.tmp"):
            path.unlink()
