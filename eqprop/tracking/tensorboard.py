"""Runs in TensorBoard: event files in the run's own folder, no account, no network.

The package, an extra, is imported when a run starts.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from eqprop.run.errors import ConfigError
from eqprop.run.text import flatten
from eqprop.tracking.base import RunInfo, State, Tracker
from eqprop.tracking.items import ConfusionMatrix, Curve, Mistakes
from eqprop.tracking.jsonl import read_rows
from eqprop.tracking.local import read_curves

MISSING = 'TensorBoard is not installed; pip install "eqprop[tensorboard]"'
_NO_CHOICES = ("paths.", "tracking.", "trainer.progress", "resume", "rerun")


class TensorboardTracker(Tracker):
    """Writes ``<run folder>/tensorboard``: a tag a number, over the optimizer's steps.

    TensorBoard keeps numbers in single precision. A curve becomes a small run of its own beside,
    over the relaxation's steps, so that it lays the curves of an epoch over those of others. A
    resumed run writes its folder anew from the run's own files, which know what still holds.
    """

    def __init__(self) -> None:
        self._folder = Path()
        self._outputs: Path | None = None
        self._config: dict[str, Any] = {}
        self._step = 0
        self._file: Any = None

    def start(self, run: RunInfo) -> None:
        """Open the event file.

        Raises:
            ConfigError: if TensorBoard is not installed.
        """
        try:
            from eqprop.tracking import events
        except ImportError as error:
            raise ConfigError(MISSING) from error
        self._folder = run.folder / "tensorboard"
        inside = run.folder.absolute().is_relative_to(run.outputs.absolute())
        self._outputs = run.outputs if inside else run.folder
        self._config, self._step = dict(run.config), 0
        times = events.wall_times(self._folder)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._file = events.EventFile(self._folder, afresh=bool(times))
        text = json.dumps(self._config, indent=4)
        self._file.text("configuration", _indented(text), 0, min(times.values(), default=None))
        if run.resumed:
            for row in read_rows(run.folder):
                self._log(row, times.get(int(row["step"])))
            for curve in read_curves(run.folder):
                self._curve(curve)

    def log(self, row: Mapping[str, float | int]) -> None:
        """Write each number of the row at its step."""
        self._log(row)

    def show(self, name: str, item: object, step: int) -> None:
        """Write a curve's run, the confusion matrix as a picture and a table, or the mistakes."""
        if isinstance(item, Curve):
            self._curve(item)
        elif isinstance(item, ConfusionMatrix):
            from eqprop.tracking.pictures import matrix_picture

            self._file.image(name, matrix_picture(item), step)
            header = ["true \\ taken for", *item.classes]
            lines = zip(item.classes, item.counts, strict=True)
            self._file.text(name, _table(header, [[of, *counts] for of, counts in lines]), step)
        elif isinstance(item, Mistakes):
            self._mistakes(name, item, step)

    def finish(self, summary: Mapping[str, Any], state: State) -> None:
        """Write the summary, and the configuration that it came from for the hparams page."""
        leaves = dict(flatten(self._config))
        chosen = {k: v for k, v in leaves.items() if not k.startswith(_NO_CHOICES)}
        self._file.hyperparameters(chosen, dict(summary), state)
        self._file.scalars(summary, self._step)
        self._file.close()

    def abandon(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError, ValueError):
                file.close()

    def location(self) -> str | None:
        """The command that shows the run beside all others."""
        if self._outputs is None:
            return None
        return f"tensorboard --logdir {shlex.quote(str(self._outputs))}"

    def _log(self, row: Mapping[str, float | int], time: float | None = None) -> None:
        self._step = int(row.get("step", self._step))
        numbers = {name: value for name, value in row.items() if name != "step"}
        self._file.scalars(numbers, self._step, time)

    def _curve(self, curve: Curve) -> None:
        from eqprop.tracking.events import EventFile

        with EventFile(self._folder / "curves" / f"epoch-{curve.epoch:04d}") as file:
            for step, (energy, residual) in enumerate(
                zip(curve.energy, curve.residual, strict=True)
            ):
                numbers = {"energy": energy, "residual": residual}
                named = {f"curves/{curve.phase}_{name}": n for name, n in numbers.items()}
                file.scalars(named, step)

    def _mistakes(self, name: str, item: Mistakes, step: int) -> None:
        from eqprop.tracking.pictures import side_by_side

        pictures = [mistake.picture for mistake in item.worst if mistake.picture is not None]
        if pictures:
            self._file.image(name, side_by_side(pictures), step)
        header = ["index", "true", "taken for", "probability", "cost"]
        lines = [
            [
                *(m.index, item.classes[m.target], item.classes[m.predicted]),
                *(f"{m.probability:.4f}", f"{m.cost:.4g}"),
            ]
            for m in item.worst
        ]
        self._file.text(name, _table(header, lines), step)


def _table(header: list[str], lines: list[list[Any]]) -> str:
    """Markdown."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("|" + "|".join(str(cell) for cell in row) + "|" for row in rows)


def _indented(text: str) -> str:
    """Markdown of a text that is shown as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines())
