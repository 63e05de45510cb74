"""The run's own metrics file: every row, one JSON object a line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, TextIO

from eqprop.run.errors import RunError
from eqprop.tracking.base import RunInfo, State, Tracker

METRICS = "metrics.jsonl"


class JsonlTracker(Tracker):
    """Appends rows to ``<run folder>/metrics.jsonl`` and flushes each one.

    It is the truth about a run, so a row that cannot be written ends the run (RunError). The lines
    are strict JSON: a number that is not finite becomes null.
    """

    essential: ClassVar[bool] = True

    def __init__(self) -> None:
        self._path: Path | None = None
        self._file: TextIO | None = None

    def start(self, run: RunInfo) -> None:
        """Open the file for appending."""
        self._path = run.folder / METRICS
        try:
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise self._failure(error) from error

    def log(self, row: Mapping[str, float | int]) -> None:
        """Append one line."""
        if self._file is None:
            raise RuntimeError("start() comes before log()")
        line = json.dumps({name: _strict(value) for name, value in row.items()}, allow_nan=False)
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from error

    def sync(self) -> int:
        """Flush the rows to the disk; returns how many bytes they are."""
        if self._file is None:
            return 0
        try:
            os.fsync(self._file.fileno())
            return os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise self._failure(error) from error

    def finish(self, summary: Mapping[str, Any], state: State) -> None:
        """Close the file: the summary belongs to ``status.json``."""
        self.abandon()

    def abandon(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
        except OSError as error:
            raise self._failure(error) from error

    def location(self) -> str | None:
        """The file's path."""
        return None if self._path is None else str(self._path)

    def _failure(self, error: OSError) -> RunError:
        return RunError(
            f"cannot write {self._path}: {error.strerror or error}; free the disk or set "
            "paths.outputs to a folder that can be written"
        )


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of the metrics file in ``folder`` that are whole and have a step, oldest first.

    A number that was not finite is None.
    """
    with suppress(FileNotFoundError), open(folder / METRICS, encoding="utf-8") as file:
        for line in file:
            with suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict) and isinstance(row.get("step"), int):
                    yield row


def _strict(value: Any) -> Any:
    """``value`` as JSON knows it: numbers of numpy or torch become Python's, NaN and inf None."""
    if isinstance(value, (bool, str)) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if hasattr(value, "item"):
        return _strict(value.item())
    return float(value) if math.isfinite(value) else None
