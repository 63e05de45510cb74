"""Who owns a folder: a lock on its ``.lock`` is held while a run or a sweep lives there.

The kernel drops the lock when the process ends, however that ends. ``status.json`` says how a run
stands, and guards its folder where the file system has no locks.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqprop.run.errors import ConfigError
from eqprop.run.text import one_line

if TYPE_CHECKING:
    from filelock import FileLock

log = logging.getLogger(__name__)

ELSEWHERE = "choose another folder with hydra.run.dir=DIR"
_PATIENCE = 0.2  # seconds; is_alive() holds the lock for a moment


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

    Where the file system has no locks, what ``status.json`` says guards the folder.

    Raises:
        ConfigError: if another process holds the lock; ``elsewhere`` says what to do.
    """
    from filelock import Timeout

    path, lock = folder / ".lock", _lock(folder)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        owner = one_line(path.read_text(errors="replace")) or "another process"
        raise ConfigError(f"{folder} is in use by {owner}; {elsewhere}") from None
    except OSError as error:
        if error.filename is not None:  # it was the file, not the lock on it
            raise
        status = read_status(folder) or {}
        if _says_alive(status) and status["pid"] != os.getpid():  # as after a container's restart
            owner = f"process {status['pid']}, says its status.json"
            raise ConfigError(f"{folder} is in use by {owner}; {elsewhere}") from None
        why = error.strerror or error
        log.warning("%s: its file system has no locks (%s); start no second run in it", folder, why)
        return lock
    try:
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}")
    except OSError:
        lock.release()
        raise
    return lock


def is_alive(folder: str | os.PathLike[str]) -> bool:
    """Whether a process is running the run in ``folder`` at this moment."""
    from filelock import Timeout

    if not (Path(folder) / ".lock").exists():
        return False
    try:
        with _lock(Path(folder)).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # no locks here, or no right to lock
        return _says_alive(read_status(folder) or {})


def _says_alive(status: dict[str, Any]) -> bool:
    """Whether the process that a ``status.json`` names runs, as far as this machine can tell."""
    import psutil

    local = status.get("host") == socket.gethostname() and status.get("pid") in psutil.pids()
    return local and status.get("state") == "running"


def _lock(folder: Path) -> FileLock:
    from filelock import FileLock

    # a soft lock in its place would outlive a killed process
    path = folder / ".lock"
    return FileLock(path, thread_local=False, poll_interval=0.02, fallback_to_soft=False)
