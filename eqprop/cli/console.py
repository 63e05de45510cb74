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


class ConsoleFormatter(logging.Formatter):
    """The message, after its level where that is a warning or an error."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, or more with a traceback."""
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"


class BelowError(logging.Filter):
    """Keeps errors off standard output: they go to standard error."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is less than an error."""
        return record.levelno < logging.ERROR


class ConsoleTracker(Tracker):
    """Shows the epochs of a run.

    Args:
        epochs: how many there will be.
        samples: training samples in each.
        progress: whether to draw a bar; None draws it on a terminal only.
    """

    def __init__(self, epochs: int, samples: int, progress: bool | None = None) -> None:
        self.epochs = epochs
        self.samples = samples
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._streams: list[tuple[Any, Any]] = []
        self._wanted = sys.stdout.isatty() if progress is None else progress
        self._last: dict[str, Any] = {"accuracy": "", "energy": "", "speed": ""}

    def start(self, run: RunInfo) -> None:
        """Draw the bar, and let log lines pass above it."""
        if not self._wanted:
            return
        columns = (
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn("{task.fields[accuracy]} {task.fields[energy]} {task.fields[speed]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, refresh_per_second=4, transient=True)
        self._task = self._bar.add_task(
            "", total=self.epochs * self.samples, epoch=1, epochs=self.epochs, **self._last
        )
        self._bar.start()
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and not hasattr(handler, "baseFilename"):
                self._streams.append((handler, handler.setStream(sys.stdout)))

    def advance(self, samples: int) -> None:
        """Move the bar on."""
        if self._bar is not None:
            self._bar.update(self._task, advance=samples)

    def log(self, row: Mapping[str, float | int]) -> None:
        """Show an epoch's row as one line, and the newest numbers in the bar."""
        if "energy/nudged" in row:
            self._last["energy"] = f"energy {row['energy/nudged']:.4g}"
        if "time/train_s" in row:
            self._show_epoch(row)
        if self._bar is not None:
            epoch = min(int(row["epoch"]) + ("time/train_s" in row), self.epochs)
            self._bar.update(self._task, epoch=epoch, **self._last)

    def _show_epoch(self, row: Mapping[str, float | int]) -> None:
        accuracies = [f"{k} {100 * row[name]:.2f} %" for k, name in _SHOWN.items() if name in row]
        self._last["accuracy"] = accuracies[-1]
        self._last["speed"] = f"{row['throughput/examples_per_s']:.0f} examples/s"
        parts = [f"epoch {row['epoch']}/{self.epochs}", *accuracies]
        if self._last["energy"]:
            parts.append(self._last["energy"])
        log.info("  ".join([*parts, self._last["speed"]]))

    def finish(self, summary: Mapping[str, Any], state: State) -> None:
        """Take the bar away."""
        self.abandon()

    def abandon(self) -> None:
        """Take the bar away and give the log lines their streams back."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()
        for handler, stream in self._streams:
            handler.setStream(stream)
        self._streams.clear()


class ConsoleProgress(Callback):
    """Moves the bar on after each step."""

    def __init__(self, console: ConsoleTracker) -> None:
        self.console = console

    def on_step(self, session: Session, samples: int) -> None:
        self.console.advance(samples)


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
        console.print(
            f"dashboard  {line}"
            if line.startswith(("wandb", "tensorboard"))
            else f"metrics    {line}"
        )
