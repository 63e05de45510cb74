"""Runs sweeps in this process, by a launcher whose jobs train nothing: seconds become moments."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hydra.types import RunMode

from eqprop.config.composer import Composer
from eqprop.sweep import plan
from eqprop.sweep.job import Job, Outcome
from eqprop.sweep.plan import Plan
from eqprop.sweep.run import conduct
from eqprop.sweep.summary import Summary

Objective = Callable[[dict[str, str]], float | str]
"""Of a job's overrides: its objective, or the reason why it fails."""


def planned(folder: Path, *words: str) -> Plan:
    """What ``-m WORDS`` asks for, in this folder."""
    composer = Composer()
    given = [*words, "tracking=none", f"hydra.sweep.dir={folder}"]
    return plan.read(composer, composer.load(given, RunMode.MULTIRUN))


def values(words: Any) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words)


def smooth(given: dict[str, str]) -> float:
    """One best point: lr 0.003, beta 1."""
    lr, beta = float(given["optimizer.lr"]), float(given.get("estimator.beta", 1))
    return 1 - abs(lr - 0.003) * 10 - abs(beta - 1) / 10 + int(given.get("seed", 0)) % 7 / 1000


@dataclass
class FakeHandle:
    job: Job
    outcome: Callable[[], Outcome | None]
    stopped: bool = False

    def poll(self) -> Outcome | None:
        if self.stopped:
            return Outcome(self.job, "interrupted", None, "stopped by the sweep", 143, 0.0)
        return self.outcome()

    def stop(self) -> None:
        self.stopped = True


@dataclass
class FakeLauncher:
    """Its jobs end at once, or after some polls that each write an epoch."""

    objective: Objective = smooth
    capacity: int = 1
    curve: list[float] = field(default_factory=list)
    started: list[Job] = field(default_factory=list)
    most: int = 0
    _running: int = 0

    def start(self, job: Job) -> FakeHandle:
        self.started.append(job)
        self._running += 1
        self.most = max(self.most, self._running)
        job.folder.mkdir(parents=True, exist_ok=True)
        left = list(enumerate(self.curve, 1))
        found = self.objective(values(job.overrides))

        def outcome() -> Outcome | None:
            if left:
                epoch, share = left.pop(0)
                accuracy = share * found if isinstance(found, float) else 0.0
                row = {"step": epoch, "epoch": epoch, "accuracy/validation": accuracy}
                with open(job.folder / "metrics.jsonl", "w") as file:
                    file.write(json.dumps(row) + "\n" + '{"step": 9, "ep')
                return None
            self._running -= 1
            if isinstance(found, str):
                return Outcome(job, "failed", None, found, 1, 0.0)
            record(job.folder, state="done", objective=found)
            return Outcome(job, "done", found, None, 0, 0.0)

        return FakeHandle(job, outcome)

    def close(self) -> None:
        pass

    @property
    def given(self) -> list[dict[str, str]]:
        """The overrides of the jobs, in order."""
        return [values(job.overrides) for job in self.started]


def record(folder: Path, **status: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "status.json").write_text(json.dumps(status))


def run(asked: Plan, launcher: FakeLauncher) -> Summary:
    """Run a sweep without waiting between two looks at its jobs."""
    with patch("eqprop.sweep.search.EVERY", 0.0), patch("eqprop.sweep.search.DOUBT", 0.0):
        return conduct(asked, launcher)


def lines(folder: Path, kind: str) -> dict[int, dict[str, Any]]:
    """The last line of each job or point in the sweep's record."""
    number = {"job": "number", "point": "point"}[kind]
    rows = map(json.loads, (folder / "results.jsonl").read_text().splitlines())
    return {row[number]: row for row in rows if row["kind"] == kind}
