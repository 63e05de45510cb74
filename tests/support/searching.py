"""Runs sweeps in this process, by a launcher whose jobs train nothing: seconds become moments."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import optuna
from hydra.types import RunMode
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from eqprop.config.compose import Composer
from eqprop.run.text import quoted
from eqprop.sweep import plan, plugin
from eqprop.sweep.job import Job, Outcome
from eqprop.sweep.plan import Plan
from eqprop.sweep.start import conduct

assert plugin  # it makes ${eqprop.search:} known

Objective = Callable[[dict[str, str]], float | str]
"""Of a job's overrides: its objective, or the reason why it fails."""


class FastComposer(Composer):
    """Composes the same job once."""

    def load(self, overrides: Any, *args: Any, **options: Any) -> Any:
        key = (tuple(overrides), *args)
        known = self.__dict__.setdefault("known", {})
        if key not in known:
            known[key] = super().load(overrides, *args, **options)
        return copy.deepcopy(known[key])


def planned(folder: Path, *words: str) -> Plan:
    """What ``-m WORDS`` asks for, in this folder."""
    composer = FastComposer()
    given = [*words, "tracking=none", f"hydra.sweep.dir={quoted(str(folder))}"]
    return plan.read(composer, composer.load(given, RunMode.MULTIRUN))


def values(words: Any) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words)


def smooth(given: dict[str, str]) -> float:
    """One best point: lr 0.003, beta 1."""
    lr, beta = float(given["optimizer.lr"]), float(given.get("estimator.beta", 1))
    return 1 - abs(lr - 0.003) * 10 - abs(beta - 1) / 10 + int(given.get("seed", 0)) % 7 / 1000


@dataclass
class FakeHandle:
    end: Callable[[], Outcome | None]
    stopped: bool = False

    def poll(self) -> Outcome | None:
        if self.stopped:
            return Outcome("interrupted", reason="stopped by the sweep", exit_code=143)
        return self.end()

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
        found = self.objective(values(job.command))

        def end() -> Outcome | None:
            if left:
                epoch, share = left.pop(0)
                accuracy = share * found if isinstance(found, float) else 0.0
                row = {"step": epoch, "epoch": epoch, "accuracy/validation": accuracy}
                with open(job.folder / "metrics.jsonl", "a") as file:
                    file.write(json.dumps(row) + "\n")
                return None
            self._running -= 1
            if isinstance(found, str):
                return Outcome("failed", reason=found, exit_code=1)
            record(job.folder, state="done", objective=found)
            return Outcome("done", found, exit_code=0)

        return FakeHandle(end)

    def close(self) -> None:
        pass

    @property
    def given(self) -> list[dict[str, str]]:
        """The overrides of the jobs, in order."""
        return [values(job.command) for job in self.started]


def record(folder: Path, **status: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "status.json").write_text(json.dumps(status))


def run(asked: Plan, launcher: FakeLauncher) -> int:
    """Run a sweep without waiting between two looks at its jobs; its exit status."""
    now = {"_EVERY": 0.0, "_CURVES_EVERY": -1.0}
    with patch.multiple("eqprop.sweep.sweeper", **now):
        return conduct(asked, launcher)


def trials(folder: Path) -> list[FrozenTrial]:
    """The study as any other program opens it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        storage = JournalStorage(JournalFileBackend(str(folder / "study.log")))
        return optuna.load_study(study_name="eqprop", storage=storage).get_trials()


def runs(folder: Path) -> list[dict[str, Any]]:
    """The runs of all points, as the study has them."""
    return [run for trial in trials(folder) for run in trial.user_attrs.get("runs", [])]
