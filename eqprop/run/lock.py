"""Who owns a run's folder: a kernel lock on ``.lock``, which vanishes with its process."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from eqprop.run.errors import ConfigError
from eqprop.run.files import one_line

ELSEWHERE = "choose another folder with hydra.run.dir=DIR"
_TRIES = 5


def refuse_used(folder: Path) -> None:
    """Raise ConfigError if a run has used ``folder``."""
    if (folder / "status.json").exists():
        raise ConfigError(
            f"{folder} holds the record of an earlier run; {ELSEWHERE}, or go on with it by "
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


def is_alive(folder: str | os.PathLike[str]) -> bool:
    """Whether a process is running the run in ``folder`` at this moment, by the kernel's lock."""
    try:
        lock = os.open(Path(folder) / ".lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks: the process itself, if it was on this machine
        status = read_status(folder) or {}
        local = status.get("host") == socket.gethostname()
        return status.get("state") == "running" and local and _runs(status.get("pid"))
    finally:
        os.close(lock)
    return False


def _runs(pid: Any) -> bool:
    return isinstance(pid, int) and Path(f"/proc/{pid}").exists()


def take_lock(folder: Path, elsewhere: str = ELSEWHERE) -> int:
    """Lock ``folder/.lock`` for this process and write the owner into it; its descriptor.

    Raises:
        ConfigError: if another process holds it; ``elsewhere`` says what to do.
    """
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _flock(lock)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    except BlockingIOError:
        owner = one_line(os.pread(lock, 300, 0).decode(errors="replace")) or "another process"
        os.close(lock)
        raise ConfigError(f"{folder} is in use by {owner}; {elsewhere}") from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _flock(descriptor: int) -> None:
    try:
        for _ in range(_TRIES):  # is_alive() holds the lock for a moment
            with contextlib.suppress(BlockingIOError):
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            time.sleep(0.02)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # some network file systems have no locks: there, status.json alone guards the folder
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise
