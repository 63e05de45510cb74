"""Who owns a folder: a lock on ``.lock`` that the kernel drops when its process ends."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqprop.run.errors import ConfigError
from eqprop.run.text import one_line

if TYPE_CHECKING:
    from filelock import FileLock

ELSEWHERE = "choose another folder with hydra.run.dir=DIR"
_PATIENCE = 0.2  # seconds; is_alive() holds the lock for a moment
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


def refuse_used(folder: Path) -> None:
    """Raise ConfigError if a run has used ``folder``."""
    if (folder / "status.json").exists():
        raise ConfigError(
            f"{folder} holds the record of an earlier run; {ELSEWHERE}, or resume it with "
            f"resume={folder}"
        )


def read_status(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What ``status.json`` in ``folder`` says, or None where there is none that can be read.

    A run that says it is running may be dead: ``is_alive`` tells.
    """
    try:
        status = json.loads((Path(folder) / "status.json").read_bytes())
    except (OSError, ValueError):
        return None
    return status if isinstance(status, dict) else None


def take_lock(folder: Path, elsewhere: str = ELSEWHERE) -> FileLock:
    """Lock ``folder`` for this process and write the owner into ``.lock``.

    Where the file system has no locks, as some network file systems, nothing is locked and
    ``status.json`` alone guards the folder.

    Raises:
        ConfigError: if another process holds the lock; ``elsewhere`` says what to do.
    """
    from filelock import Timeout

    path, lock = folder / ".lock", _lock(folder)
    try:
        lock.acquire(timeout=_PATIENCE)
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}")
    except Timeout:
        owner = one_line(path.read_text(errors="replace")) or "another process"
        raise ConfigError(f"{folder} is in use by {owner}; {elsewhere}") from None
    except OSError as error:
        lock.release()
        if error.errno not in _NO_LOCKS:
            raise
    return lock


def is_alive(folder: str | os.PathLike[str]) -> bool:
    """Whether a process is running the run in ``folder`` at this moment."""
    from filelock import Timeout

    folder = Path(folder)
    if not (folder / ".lock").exists():
        return False
    lock = _lock(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # no locks here, or no right to lock
        status = read_status(folder) or {}
        local = status.get("host") == socket.gethostname()
        return status.get("state") == "running" and local and _exists(status.get("pid"))
    lock.release()
    return False


def _lock(folder: Path) -> FileLock:
    # a soft lock in its place would outlive a killed process
    from filelock import FileLock

    path = folder / ".lock"
    return FileLock(path, thread_local=False, poll_interval=0.02, fallback_to_soft=False)


def _exists(pid: Any) -> bool:
    import psutil

    return isinstance(pid, int) and psutil.pid_exists(pid)
