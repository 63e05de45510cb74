"""The run's own metrics file: every row, one JSON object a line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TextIO

from eqprop.run.errors import RunError
from eqprop.tracking.base import Row, RunInfo, State, Tracker

METRICS = "metrics.jsonl"


class JsonlTracker(Tracker):
    """Appends rows to ``<run folder>/metrics.jsonl`` and flushes each one.

    It is the authoritative record of a run, so a row that cannot be written ends the run
    (RunError). The lines are strict JSON: a number that is not finite becomes null.
    """

    essential: ClassVar[bool] = True

    def __init__(self) -> None:
        self._path: Path | None = None
        self._file: TextIO | None = None

    def start(self, run: RunInfo) -> None:
        """Open the file for appending."""
        self._path = run.folder / METRICS
        with self._writing():
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115

    def log(self, row: Row) -> None:
        """Append one line."""
        if self._file is None:
            raise RuntimeError("start() comes before log()")
        line = json.dumps({name: _strict(value) for name, value in row.items()}, allow_nan=False)
        with self._writing():
            self._file.write(line + "\n")
            self._file.flush()

    def sync(self) -> int:
        """Flush the rows to the disk; returns how many bytes they are."""
        if self._file is None:
            return 0
        with self._writing():
            os.fsync(self._file.fileno())
            return os.fstat(self._file.fileno()).st_size

    def finish(self, summary: Mapping[str, Any], state: State) -> None:
        """Close the file: the summary belongs to ``status.json``."""
        self.abandon()

    def abandon(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            with self._writing():
                file.close()

    def location(self) -> str | None:
        """The file's path."""
        return None if self._path is None else str(self._path)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"cannot write {self._path}: {error.strerror or error}; free the disk or set "
                "paths.outputs to a folder that can be written"
            ) from error


def _strict(value: Any) -> Any:
    """``value`` as JSON knows it: numbers of numpy or torch become Python's, NaN and inf None."""
    if isinstance(value, (bool, str)) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if hasattr(value, "item"):
        return _strict(value.item())
    return float(value) if math.isfinite(value) else None
