"""The record of a sweep, in its folder.

``sweep.json`` says what the sweep is: ``command``, ``space`` (each key as it was written),
``search`` (the keys of ``sweep`` that decide the runs) and ``reference`` (the overrides of one
point, and the configuration there without what may change).

``results.jsonl`` has one JSON object a line; a later line replaces the earlier one of the same
``kind`` and number, and a line cut off at the end of the file counts for nothing:

- ``{"kind": "point", "point", "cell", "overrides", "state", "mean", "standard_error", "n",
  "reason"}``: ``mean`` and ``standard_error`` (null for one run) are over the ``n`` runs that are
  done; ``state`` is running, done, failed or pruned; ``cell`` is a hash of its values.
- ``{"kind": "job", "number", "point", "repeat", "overrides", "folder", "seed", "state",
  "objective", "reason", "exit_code", "seconds"}``: ``folder`` is relative to the sweep's;
  ``overrides`` are the point's; ``state`` is waiting, running, done, failed, pruned, interrupted
  (to be gone on with) or skipped (another run of its point has failed).

A line is on the disk before what it announces happens.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eqprop.run.errors import ConfigError
from eqprop.run.files import sync_folder, write_atomically
from eqprop.run.lock import take_lock
from eqprop.run.redact import redact_all

ABOUT = "sweep.json"
RESULTS = "results.jsonl"
ELSEWHERE = "choose another folder with hydra.sweep.dir=DIR"

Line = dict[str, Any]


class Book:
    """A sweep's folder, held by this process until ``close``.

    Attributes:
        about: what ``sweep.json`` says, None in a new sweep.
        jobs: the last line of each job, by number.
        points: the last line of each point, by number.

    Raises:
        ConfigError: if another process holds the folder, it cannot be written, or its record
            cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: dict[int, Line] = {}
        self.points: dict[int, Line] = {}
        self._numbers: dict[int, list[int]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock: int | None = take_lock(folder, ELSEWHERE)
        except OSError as error:
            raise unwritable(folder, error) from error
        try:
            self.about = self._read_about()
            self._read_results()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the folder go."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def describe(self, about: Mapping[str, Any]) -> None:
        """Write ``sweep.json``, without secrets."""
        self.about = redact_all(about)
        text = json.dumps(self.about, indent=2, default=str)
        write_atomically(self.folder / ABOUT, text.encode() + b"\n")

    def note_job(self, number: int, **changes: Any) -> Line:
        """Write a job's line: what it was, with these changes."""
        line = {"kind": "job", "number": number, **self.jobs.get(number, {}), **changes}
        self._append(line)
        self._take(line)
        return line

    def note_point(self, point: int, **changes: Any) -> Line:
        """Write a point's line: what it was, with these changes."""
        line = {"kind": "point", "point": point, **self.points.get(point, {}), **changes}
        self._append(line)
        self._take(line)
        return line

    def jobs_of(self, point: int) -> list[Line]:
        """The lines of a point's jobs, in order of their repeats."""
        return [self.jobs[number] for number in self._numbers.get(point, ())]

    def next_number(self) -> int:
        """A job's number that has never been used here."""
        return max(self.jobs, default=-1) + 1

    def next_point(self) -> int:
        """A point's number that has never been used here."""
        return max(self.points, default=-1) + 1

    def path_of(self, line: Line) -> Path:
        """The folder of a job, absolute."""
        return self.folder / str(line["folder"])

    def relative(self, folder: Path) -> str:
        """A folder as it is recorded."""
        return os.path.relpath(folder, self.folder)

    def _take(self, line: Line) -> None:
        if line["kind"] == "point":
            self.points[int(line["point"])] = line
        elif line["kind"] == "job":
            number = int(line["number"])
            if number not in self.jobs:
                self._numbers.setdefault(int(line["point"]), []).append(number)
            self.jobs[number] = line

    def _append(self, line: Line) -> None:
        text = json.dumps(redact_all(line), allow_nan=False, default=str)
        with open(self.folder / RESULTS, "ab") as file:
            file.write(text.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _read_about(self) -> Line | None:
        try:
            found = json.loads((self.folder / ABOUT).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise self._unreadable(ABOUT) from error
        if not isinstance(found, dict):
            raise self._unreadable(ABOUT)
        return found

    def _read_results(self) -> None:
        path = self.folder / RESULTS
        cut_torn_line(path)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                self._take(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                raise self._unreadable(f"{RESULTS}, line {number},") from error
        sync_folder(self.folder)

    def _unreadable(self, name: str) -> ConfigError:
        return ConfigError(f"{self.folder / name} cannot be read as a sweep's record; {ELSEWHERE}")


def unwritable(folder: Path, error: OSError) -> ConfigError:
    """The person's own error where a sweep's folder cannot be made or written."""
    return ConfigError(
        f"cannot write the sweep's folder {folder}: {error.strerror or error}; set hydra.sweep.dir "
        "or paths.outputs to a folder that can be written"
    )


def cut_torn_line(path: Path) -> None:
    """Drop the end of a file that its writer did not finish: what comes after its last newline."""
    if not path.exists():
        return
    with open(path, "r+b") as file:
        text = file.read()
        whole = text.rfind(b"\n") + 1
        if whole != len(text):
            file.truncate(whole)
            os.fsync(file.fileno())
