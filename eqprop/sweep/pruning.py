"""Stopping hopeless runs: their accuracy after each epoch, and what their end is called."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from eqprop.sweep.job import Handle, Job, JobLauncher, Outcome


class Curve:
    """The accuracies that a running job writes, each read once.

    Half a row at the end of its file is left for the next time; where a resumed job has cut its
    file back, it is read again from the start.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "metrics.jsonl"
        self._read = 0

    def news(self) -> list[tuple[int, float]]:
        """The epochs that have ended since the last call, with the accuracy that counts."""
        try:
            with open(self.path, "rb") as file:
                if file.seek(0, 2) < self._read:
                    self._read = 0
                file.seek(self._read)
                text = file.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        found = map(_accuracy, whole.splitlines())
        return [pair for pair in found if pair is not None]


class Prunable:
    """A launcher whose jobs end as pruned where they were stopped for that.

    Attributes:
        why: for each job that was stopped so, by its number, one line.
    """

    def __init__(self, launcher: JobLauncher) -> None:
        self.launcher = launcher
        self.capacity = launcher.capacity
        self.why: dict[int, str] = {}

    def start(self, job: Job) -> Handle:
        """Start a job."""
        return _Prunable(self.launcher.start(job), self.why)

    def close(self) -> None:
        """Let go of the launcher."""
        self.launcher.close()


class _Prunable:
    def __init__(self, handle: Handle, why: dict[int, str]) -> None:
        self.handle = handle
        self.job = handle.job
        self.why = why

    def poll(self) -> Outcome | None:
        outcome = self.handle.poll()
        reason = self.why.get(self.job.number)
        if outcome is None or reason is None or outcome.state == "done":
            return outcome  # a job that was faster than the signal counts
        return replace(outcome, state="pruned", reason=reason)

    def stop(self) -> None:
        self.handle.stop()


def _accuracy(line: bytes) -> tuple[int, float] | None:
    """The epoch and accuracy of a row that ends an evaluated epoch."""
    try:
        row: Any = json.loads(line)
        value = row.get("accuracy/validation", row.get("accuracy/test"))
        epoch = int(row["epoch"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return epoch, float(value)
