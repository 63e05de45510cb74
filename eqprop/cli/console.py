"""What a person sees of a run: a bar on a terminal, plain lines in a file, a table at the end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from eqprop.tracking import RunInfo, State, Tracker, Trackers
from eqprop.training.callback import Callback
from eqprop.training.session import Session

log = logging.getLogger(__name__)
_TABLE = 40  # columns of the table of results
_SHOWN = {"train": "accuracy/train", "validation": "accuracy/validation", "test": "accuracy/test"}


class ConsoleHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Prints a run's lines: errors to standard error, above a bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print to what the streams are now: a bar stands in for them while it is drawn."""
        self.stream = sys.stdout if record.levelno < logging.ERROR else sys.stderr
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        """The message, after its level where that is a warning or an error."""
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"


class ConsoleTracker(Tracker, Callback):
    """Shows the epochs of a run; ``progress`` is whether to draw a bar, None: on a terminal."""

    def __init__(self, epochs: int, samples: int, progress: bool | None = None) -> None:
        self.epochs, self.samples = epochs, samples
        wanted = sys.stdout.isatty() if progress is None else progress
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn("{task.fields[accuracy]} {task.fields[energy]} {task.fields[speed]}"),
            TimeRemainingColumn(),
            refresh_per_second=4,
            transient=True,
            disable=not wanted,
        )
        self._task = TaskID(0)
        self._last: dict[str, Any] = {"accuracy": "", "energy": "", "speed": ""}

    def start(self, run: RunInfo) -> None:
        """Draw the bar; log lines pass above it."""
        total = self.epochs * self.samples
        self._task = self._bar.add_task("", total=total, epoch=1, epochs=self.epochs, **self._last)
        self._bar.start()

    def on_step(self, session: Session, samples: int) -> None:
        self._bar.advance(self._task, samples)

    def log(self, row: Mapping[str, float | int]) -> None:
        """Show an epoch's row as one line, and the newest numbers in the bar."""
        if "energy/nudged" in row:
            self._last["energy"] = f"energy {row['energy/nudged']:.4g}"
        if "time/train_s" in row:
            self._show_epoch(row)
        epoch = min(int(row["epoch"]) + ("time/train_s" in row), self.epochs)
        self._bar.update(self._task, epoch=epoch, **self._last)

    def _show_epoch(self, row: Mapping[str, float | int]) -> None:
        accuracies = [f"{k} {100 * row[name]:.2f} %" for k, name in _SHOWN.items() if name in row]
        self._last["accuracy"] = accuracies[-1]
        self._last["speed"] = f"{row['throughput/examples_per_s']:.0f} examples/s"
        parts = [*accuracies, self._last["energy"], self._last["speed"]]
        log.info("  ".join([f"epoch {row['epoch']}/{self.epochs}", *filter(None, parts)]))

    def finish(self, summary: Mapping[str, Any], state: State) -> None:
        self._bar.stop()

    def abandon(self) -> None:
        self._bar.stop()


def show_result(summary: Mapping[str, float], folder: Path, trackers: Trackers) -> None:
    """Print the accuracies as a small table, then the run's folder and where to look."""
    table = Table("accuracy", "best", "last")
    for split, name in _SHOWN.items():
        if f"best/{name}" in summary:
            cells = (f"{100 * summary[f'{which}/{name}']:.2f} %" for which in ("best", "last"))
            table.add_row(split, *cells)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.width = max(console.width, _TABLE)  # a narrower terminal wraps it, and loses no digit
    console.print(table)
    console.print(f"run        {folder}")
    for line in trackers.locations():
        is_command = line.startswith(("wandb", "tensorboard"))
        console.print(f"{'dashboard' if is_command else 'metrics':<10} {line}")
