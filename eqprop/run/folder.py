"""The folder of one run: how the run stands (``status.json``), what it ran on.

``status.json`` is replaced atomically, so it is whole at every moment.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from eqprop.run.errors import ConfigError, RunError, UserError
from eqprop.run.files import remove_leftovers, write_atomically
from eqprop.run.home import lost_caches
from eqprop.run.lock import ELSEWHERE, read_status, take_lock
from eqprop.run.redact import redact
from eqprop.run.signals import undisturbed
from eqprop.run.text import one_line

if TYPE_CHECKING:
    from filelock import FileLock

log = logging.getLogger(__name__)


def refuse_used(folder: Path) -> None:
    """Raise ConfigError if a run in ``folder`` has got as far as its first step."""
    if (folder / "status.json").exists() and not _never_began(folder):
        raise ConfigError(
            f"{folder} holds the record of an earlier run; {ELSEWHERE}, or resume it with "
            f"resume={folder}"
        )


def _never_began(folder: Path) -> bool:
    ended = (read_status(folder) or {}).get("state") in ("failed", "interrupted")
    metrics = folder / "metrics.jsonl"
    measured = metrics.exists() and metrics.stat().st_size > 0
    return ended and not measured and not any(folder.glob("checkpoints/*.pt"))


class RunFolder:
    """A run's folder, claimed by this process. Made by ``RunFolder.claim``.

    As a context manager it records how the block ended: ``done`` unless ``finish`` was called,
    ``interrupted`` after Ctrl-C, ``failed`` with the reason after any other exception.
    """

    def __init__(self, path: Path, lock: FileLock, command: Sequence[str]) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.command = list(command)
        self._lock: FileLock | None = lock
        self._begun = False  # it has a record
        self._environment: dict[str, Any] = {}
        self._status: dict[str, Any] = {
            **{"state": "running", "exit_code": None, "reason": None, "objective": None},
            **{"pid": os.getpid(), "host": socket.gethostname(), "start": _now(), "end": None},
            "seconds": 0.0,  # of all its processes, but for the one that runs
        }
        self._began = time.monotonic()

    @classmethod
    def claim(
        cls,
        path: str | os.PathLike[str],
        command: Sequence[str] | None = None,
        resume: bool = False,
        first: Callable[[Path], None] | None = None,
    ) -> RunFolder:
        """Take ``path`` (made if missing) for this run and record that it is running.

        ``command`` is by default ``sys.argv``. ``resume`` goes on with the run whose record the
        folder holds. ``first`` writes what must be there as soon as there is a record. Raises
        ConfigError if another run uses it or, without ``resume``, has, or if it is not writable.
        """
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            folder = cls(path, take_lock(path), sys.argv if command is None else command)
            try:
                folder._begin(resume, first)
            except BaseException as error:
                if folder._begun:
                    folder.__exit__(type(error), error, None)
                folder._release()
                raise
        except OSError as error:
            raise ConfigError(
                f"cannot write the run's folder {path}: {error.strerror or error}; set "
                "hydra.run.dir or paths.outputs to a folder that can be written"
            ) from error
        return folder

    def record_gpus(self) -> None:
        """Name the GPUs in ``environment.json``: torch, loaded by now, sees them."""
        from eqprop.run import environment

        self._environment["hardware"] = environment.hardware()
        self._write("environment.json", self._environment)

    def finish(
        self,
        state: Literal["done", "failed", "interrupted"],
        exit_code: int = 0,
        reason: str | None = None,
        objective: float | None = None,
        results: Mapping[str, Any] | None = None,
    ) -> None:
        """Record the run's end and release the folder; only the first call counts.

        ``results`` go in as they are. An ``objective`` that is not finite is recorded as null.
        Raises RunError if the folder has become unwritable.
        """
        if self._lock is None:
            return
        if objective is not None and not math.isfinite(objective):
            objective, reason = None, reason or f"the objective is {objective}"
        reason = None if reason is None else redact(one_line(reason, 1000))
        end = {"state": state, "exit_code": exit_code, "reason": reason, "objective": objective}
        end |= results or {}
        end["seconds"] = round(self._status["seconds"] + time.monotonic() - self._began, 3)
        with undisturbed():
            try:
                self._write("status.json", {**self._status, **end, "end": _now()})
            except OSError as error:
                raise RunError(
                    f"cannot record the end of the run in {self.path}: {error.strerror or error}; "
                    "free the disk or restore the folder"
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
        elif isinstance(error, KeyboardInterrupt):
            self._fail("interrupted", getattr(error, "exit_code", 130), error)
        elif isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
            # with 0 too: somebody else's code left in the middle of the run
            self._fail("failed", code, error if code else "sys.exit(0) before the end of the run")
        else:
            self._fail("failed", error.exit_code if isinstance(error, UserError) else 1, error)

    def _fail(self, state: Literal["failed", "interrupted"], code: int, why: object) -> None:
        # the error that ended the run is the one to report, not that its record failed too
        with contextlib.suppress(RunError):
            self.finish(state, code, str(why) or type(why).__name__)

    def _begin(self, resume: bool, first: Callable[[Path], None] | None) -> None:
        from eqprop.run import environment  # loads psutil, which no mistake should wait for

        if not resume:
            refuse_used(self.path)
        (self.path / "traceback.txt").unlink(missing_ok=True)  # of an earlier failure
        if resume and (earlier := read_status(self.path)) is not None:
            self._status["seconds"] = _seconds(self.path, earlier)
            self._status["resumed"] = [*earlier.get("resumed", []), self._status["start"]]
            self._status["start"] = earlier.get("start", self._status["start"])
        self.checkpoints.mkdir(exist_ok=True)
        remove_leftovers(self.path)
        remove_leftovers(self.checkpoints)
        if first is not None:
            first(self.path)
        self._begun = True
        self._write("status.json", self._status)
        self._environment = environment.describe(self.command)
        self._write("environment.json", self._environment)
        if line := lost_caches():
            log.warning(line)

    def _write(self, name: str, content: dict[str, Any]) -> None:
        text = json.dumps(content, indent=2, allow_nan=False)
        write_atomically(self.path / name, text.encode() + b"\n")

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _seconds(folder: Path, status: dict[str, Any]) -> float:
    """How long the processes of a run worked, without the pauses between them.

    One that recorded no end is taken to have worked until it last measured something.
    """
    try:
        before = float(status.get("seconds") or 0.0)
        if status.get("state") != "running":
            return before
        start = datetime.fromisoformat([status["start"], *status.get("resumed", [])][-1])
        last = (folder / "metrics.jsonl").stat().st_mtime
        return round(before + max(0.0, last - start.timestamp()), 3)
    except (OSError, KeyError, TypeError, ValueError):
        return 0.0


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
