"""The folder of one run: who owns it, how the run stands (``status.json``), what it ran on.

``status.json`` is replaced atomically, so it is whole at every moment. A lock is held while the
run lives, and vanishes with its process however that ends.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from eqprop.run.errors import ConfigError, RunError, UserError
from eqprop.run.files import remove_leftovers, write_atomically
from eqprop.run.lock import is_alive, read_status, refuse_used, take_lock
from eqprop.run.redact import redact
from eqprop.run.text import one_line

if TYPE_CHECKING:
    from filelock import FileLock

State = Literal["running", "done", "failed", "interrupted"]

__all__ = ["RunFolder", "State", "is_alive", "read_status", "refuse_used"]


class RunFolder:
    """A run's folder, claimed by this process. Made by ``RunFolder.claim``.

    As a context manager it records how the block ended: ``done`` unless ``finish`` was called,
    ``interrupted`` after Ctrl-C, ``failed`` with the reason after any other exception.
    """

    def __init__(self, path: Path, lock: FileLock, command: Sequence[str]) -> None:
        self.path = path
        self.command = list(command)
        self._lock: FileLock | None = lock
        self._status: dict[str, Any] = {
            "state": "running",
            "exit_code": None,
            "reason": None,
            "objective": None,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "start": _now(),
            "end": None,
        }

    @classmethod
    def claim(
        cls,
        path: str | os.PathLike[str],
        command: Sequence[str] | None = None,
        resume: bool = False,
        first: Callable[[Path], None] | None = None,
    ) -> RunFolder:
        """Take ``path`` (made if missing) for this run and record that it is running.

        ``command`` is the run's command line, ``sys.argv`` if not given; secrets in it are masked.
        ``resume`` goes on with the run whose record the folder holds. ``first`` writes what must be
        there as soon as there is a record. Raises ConfigError if another run is using the folder
        or, without ``resume``, has used it, or if it cannot be written.
        """
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            folder = cls(path, take_lock(path), sys.argv if command is None else command)
            try:
                folder._begin(resume, first)
            except BaseException:
                folder._release()
                raise
        except OSError as error:
            raise ConfigError(
                f"cannot write the run's folder {path}: {error.strerror or error}; set "
                "hydra.run.dir or paths.outputs to a folder that can be written"
            ) from error
        return folder

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints go; it exists."""
        return self.path / "checkpoints"

    @property
    def finished(self) -> bool:
        """Whether ``finish`` has been called."""
        return self._lock is None

    def record_environment(self) -> None:
        """Write ``environment.json``; done again once torch is loaded, it also names the GPUs."""
        from eqprop.run import environment  # loads psutil, which no mistake should wait for

        self._write("environment.json", environment.describe(self.command))

    def finish(
        self,
        state: State,
        exit_code: int = 0,
        reason: str | None = None,
        objective: float | None = None,
    ) -> None:
        """Record the run's end and release the folder; only the first call counts.

        An ``objective`` that is not finite is recorded as null. Raises RunError if the folder has
        become unwritable.
        """
        if self.finished:
            return
        finite = objective is not None and math.isfinite(objective)
        if reason is None and objective is not None and not finite:
            reason = f"the objective is {objective}"
        self._status.update(
            state=state,
            exit_code=exit_code,
            reason=None if reason is None else redact(one_line(reason, 1000)),
            objective=objective if finite else None,
            end=_now(),
        )
        try:
            self._write("status.json", self._status)
        except OSError as error:
            raise RunError(
                f"cannot record the end of the run in {self.path}: {error.strerror or error}; free "
                "the disk or restore the folder"
            ) from error
        finally:
            self._release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.finish("done")
            return
        state, exit_code = _outcome(error)
        # the error that ended the run is the one to report, not that its record failed too
        with contextlib.suppress(RunError):
            self.finish(state, exit_code, _reason(error))

    def _begin(self, resume: bool, first: Callable[[Path], None] | None) -> None:
        if not resume:
            refuse_used(self.path)
        earlier = read_status(self.path)
        if earlier is not None:
            self._status["resumed"] = [*earlier.get("resumed", []), self._status["start"]]
            self._status["start"] = earlier.get("start", self._status["start"])
        self.checkpoints.mkdir(exist_ok=True)
        remove_leftovers(self.path)
        remove_leftovers(self.checkpoints)
        if first is not None:
            first(self.path)
        self._write("status.json", self._status)
        self.record_environment()

    def _write(self, name: str, content: dict[str, Any]) -> None:
        text = json.dumps(content, indent=2, allow_nan=False)
        write_atomically(self.path / name, text.encode() + b"\n")

    def _release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()


def _outcome(error: BaseException) -> tuple[State, int]:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", getattr(error, "exit_code", 130)
    if isinstance(error, UserError):
        return "failed", error.exit_code
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        return "failed", code  # with 0 too: somebody else's code left in the middle of the run
    return "failed", 1


def _reason(error: BaseException) -> str:
    if isinstance(error, SystemExit) and not error.code:
        return "sys.exit(0) before the end of the run"
    return str(error) or type(error).__name__


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
