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

    A temporary file of a unique name in the same folder is written, flushed to the disk and
    renamed; then the folder is flushed. ``before`` is given the flushed file and may still refuse
    it by raising. Raises OSError, after removing the temporary file.
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
    sync_folder(path.parent)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files of writers that were killed; nobody may be writing there."""
    with contextlib.suppress(OSError):
        for path in Path(folder).glob(".*.tmp"):
            path.unlink()


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Flush a folder's entries to the disk, where its file system knows how to."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
