"""What a job's folder says of its process, whoever started it: the lock, and the wish to stop it.

``.job`` carries a kernel lock that the job's process inherits from whoever starts it. So from the
first moment to the last, however either of them ends, the kernel knows whether the job lives.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LOCK = ".job"
STOP = ".stop"
_TRIES = 10


@contextmanager
def taken(folder: Path) -> Iterator[int]:
    """Hold the job's lock of ``folder`` within it; yields its descriptor, for the process to come.

    Raises:
        BlockingIOError: if another process of the job holds it.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        for left in reversed(range(_TRIES)):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:  # is_running() holds it for a moment
                if not left:
                    raise
                time.sleep(0.02)
            except OSError:
                break  # a file system without locks: the process id alone tells
        os.ftruncate(descriptor, 0)
        yield descriptor
    finally:
        os.close(descriptor)


def sign(descriptor: int, pid: int) -> None:
    """Write down which process has inherited the lock."""
    owner = {"pid": pid, "host": socket.gethostname(), "start": time.time()}
    os.pwrite(descriptor, json.dumps(owner).encode(), 0)


def owner(folder: Path) -> dict[str, Any]:
    """The last process of the job: its ``pid``, ``host`` and ``start``; empty if nobody knows."""
    try:
        found = json.loads((folder / LOCK).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_running(folder: Path) -> bool:
    """Whether the job's process in ``folder`` lives."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        # a process that the job left behind may hold the lock after it
        return local_pid(folder) is not None or not _is_local(owner(folder))
    except OSError:
        return local_pid(folder) is not None
    finally:
        os.close(descriptor)


def local_pid(folder: Path) -> int | None:
    """The process id of the job, if it lives on this machine."""
    found = owner(folder)
    pid = found.get("pid")
    if not isinstance(pid, int) or not _is_local(found):
        return None
    return pid if Path(f"/proc/{pid}").exists() else None


def _is_local(owner: dict[str, Any]) -> bool:
    return owner.get("host") == socket.gethostname()


def ask_to_stop(folder: Path) -> None:
    """Leave word for whoever watches over the job, wherever that is."""
    with suppress(OSError):
        (folder / STOP).touch()


def is_asked_to_stop(folder: Path) -> bool:
    """Whether somebody left word."""
    return (folder / STOP).exists()


def forget_stop(folder: Path) -> None:
    """The word was for an earlier attempt."""
    with suppress(OSError):
        (folder / STOP).unlink(missing_ok=True)
