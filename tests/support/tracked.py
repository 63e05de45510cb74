"""What the tests of trackers share: a run to record, one that keeps calls, W&B's own reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eqprop.tracking import RunInfo, Tracker
from eqprop.tracking.base import ConfusionMatrix, Curve, Mistake, Mistakes, Picture

PACKAGE = Path(__file__).parents[2]
ROWS = [
    {"step": 0, "epoch": 0, "cost/free": 2.5, "accuracy/train": 0.25},
    {"step": 1, "epoch": 0, "cost/free": 1.5, "accuracy/train": 0.5},
    {"step": 1, "epoch": 1, "accuracy/validation": 0.75, "time/train_s": 2.0},
]

CURVES = [
    Curve(epoch, 10 * epoch, phase, (2.0, 1.0 / epoch, 0.25), (0.5, 0.25, 0.125))
    for epoch in (1, 2)
    for phase in ("free", "nudged")
]
PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)
PICTURE = Picture(PIXELS)
MATRIX = ConfusionMatrix(((3, 1), (2, 4)), ("cat", "dog"))
MISTAKES = Mistakes(
    (Mistake(5, 0, 1, 0.75, 0.25, 2.5, PIXELS), Mistake(6, 1, 0, 0.6, 0.4, 1.5, PIXELS)),
    MATRIX.classes,
)


def run_in(tmp_path: Path) -> RunInfo:
    folder = tmp_path / "outputs" / "2026-01-02" / "run"
    folder.mkdir(parents=True)
    return RunInfo(
        id="2026-01-02_03-04-05-gaussian_lr=0.001",
        name="gaussian, lr 0.001",
        project="eqprop",
        folder=folder,
        outputs=tmp_path / "outputs",
        group="sweep 1",
        tags=("baseline", "two"),
        notes="a note",
        config={"model": {"hidden": [100, 50]}, "optimizer": {"lr": 0.001}, "name": None},
    )


class Recorder(Tracker):
    """Keeps the calls; fails in the method ``bad``."""

    def __init__(self, bad: str = "", error: BaseException | None = None) -> None:
        self.bad, self.error = bad, error or OSError("disk\nfull")
        self.calls: list[tuple] = []

    def _note(self, name: str, *arguments: object) -> None:
        self.calls.append((name, *arguments))
        if name == self.bad:
            raise self.error

    def start(self, run: RunInfo) -> None:
        self._note("start", run)

    def log(self, row: Mapping[str, float | int]) -> None:
        self._note("log", dict(row))

    def show(self, name: str, item: object, step: int) -> None:
        self._note("show", name, item, step)

    def finish(self, summary: Mapping[str, Any], state: str) -> None:
        self._note("finish", dict(summary), state)

    def abandon(self) -> None:
        self._note("abandon")

    def location(self) -> str | None:
        return f"look at {self.bad or 'me'}"


def drive(tracker: Tracker, run: RunInfo, state: Any = "done") -> None:
    tracker.start(run)
    for row in ROWS:
        tracker.log(row)
    tracker.finish({"best/accuracy/validation": 0.75}, state)


def recorded(outputs: Path, run_id: str) -> Path:
    (file,) = (outputs / "wandb").glob(f"offline-run-*/run-{run_id}.wandb")
    return file


def inspect(file: Path, *options: str) -> str:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", *options, "--json", str(file)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def summary_of(file: Path) -> dict[str, Any]:
    return json.loads(inspect(file, "--summary"))


def records(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in inspect(file).splitlines()]


SCRIPT = """
import logging, sys
from pathlib import Path
from eqprop.tracking import LocalFiles, RunInfo, Trackers, WandbTracker
logging.basicConfig(format="%(message)s")
outputs = Path(sys.argv[1])
def record(name, meddle=lambda: None):
    trackers = Trackers([LocalFiles(), WandbTracker(*sys.argv[2:3])])
    folder = outputs / name
    folder.mkdir(parents=True)
    trackers.start(RunInfo(name, name, "eqprop", folder, outputs))
    for step in range(3):
        trackers.log({"step": step, "epoch": 0, "a": step})
        if step == 0:
            meddle()
    trackers.finish({}, "done")
"""


def script(
    code: str, *arguments: object, cwd: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    return subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(PACKAGE), **variables},
    )
