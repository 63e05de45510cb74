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
_SPLITS = ("train", "validation", "test")
_NAMES = {"train": "train (learning)"}  # while the weights moved: of no one model


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
            TextColumn("{task.fields[accuracy]} {task.fields[cost]} {task.fields[speed]}"),
            TimeRemainingColumn(),
            refresh_per_second=4,
            transient=True,
            disable=not wanted,
        )
        self._task = TaskID(0)
        self._last: dict[str, Any] = {"accuracy": "", "cost": "", "speed": ""}

    def start(self, run: RunInfo) -> None:
        """Draw the bar; log lines pass above it."""
        total = self.epochs * self.samples
        self._task = self._bar.add_task("", total=total, epoch=1, epochs=self.epochs, **self._last)
        self._bar.start()

    def on_step(self, session: Session, samples: int) -> None:
        self._bar.advance(self._task, samples)

    def log(self, row: Mapping[str, float | int]) -> None:
        """Show an epoch's row as one line, and the newest numbers in the bar."""
        if "cost/free" in row:
            self._last["cost"] = f"cost of a batch {row['cost/free']:.4g}"
        if "time/train_s" in row:
            self._show_epoch(row)
        epoch = min(int(row["epoch"]) + ("time/train_s" in row), self.epochs)
        self._bar.update(self._task, epoch=epoch, **self._last)

    def _show_epoch(self, row: Mapping[str, float | int]) -> None:
        found = {
            split: f"{split} {100 * row[f'accuracy/{split}']:.2f} %"
            for split in _SPLITS
            if f"accuracy/{split}" in row
        }
        self._last["accuracy"] = found.get("validation", list(found.values())[-1])
        self._last["speed"] = f"{row['throughput/examples_per_s']:.0f} examples/s"
        parts = [f"{text} (cost {row[f'cost/{split}']:.4g})" for split, text in found.items()]
        head = f"epoch {row['epoch']}/{self.epochs}"
        log.info("  ".join([head, *parts, self._last["speed"]]))

    def finish(self, summary: Mapping[str, Any], state: State) -> None:
        self._bar.stop()

    def abandon(self) -> None:
        self._bar.stop()


def show_result(
    summary: Mapping[str, float], folder: Path, trackers: Trackers, selected_by: str
) -> None:
    """Print the accuracies as a small table, then the run's folder and where to look.

    A column is of one model: that with the best ``selected_by``, and the last one.
    """
    table = Table("accuracy", "best", "last")
    columns = ("best", "last")
    table.add_row("epoch", *(_epoch(summary, which) for which in columns))
    for split in _SPLITS:
        found = [summary.get(f"{which}/accuracy/{split}") for which in columns]
        if any(value is not None for value in found):
            cells = ("-" if value is None else f"{100 * value:.2f} %" for value in found)
            table.add_row(_NAMES.get(split, split), *cells)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.width = max(console.width, _TABLE)  # a narrower terminal wraps it, and loses no digit
    console.print(table)
    console.print(f"selected   {selection(summary, selected_by)}")
    console.print(f"run        {folder}")
    for line in trackers.locations():
        is_command = line.startswith(("wandb", "tensorboard"))
        console.print(f"{'dashboard' if is_command else 'metrics':<10} {line}")


def selection(summary: Mapping[str, float], selected_by: str) -> str:
    """Which epoch's model is the best, by what it was selected, and its test accuracy."""
    split, epoch = selected_by.partition("/")[2], _epoch(summary, "best")
    if split == "test":
        chose = "the test set itself, as there is no validation split: its accuracy flatters"
        return f"epoch {epoch} (best.pt), by {chose}"
    accuracy = summary.get("best/accuracy/test")
    test = "was not measured" if accuracy is None else f"is {100 * accuracy:.2f} %"
    return f"epoch {epoch} (best.pt), by its {split} accuracy; its test accuracy {test}"


def _epoch(summary: Mapping[str, float], which: str) -> str:
    """Not known where a checkpoint of an earlier version had it."""
    return f"{summary[f'{which}/epoch']:g}" if f"{which}/epoch" in summary else "-"
