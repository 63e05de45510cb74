"""Runs in TensorBoard: event files in the run's own folder, no account, no network.

The package, an extra, is imported when a run starts.
"""

from __future__ import annotations

import importlib.util
import json
import math
import shlex
import shutil
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from eqprop.run.errors import ConfigError
from eqprop.run.reading import read_rows
from eqprop.run.text import flatten
from eqprop.tracking.base import Row, RunInfo, State, Tracker
from eqprop.tracking.items import ConfusionMatrix, Curve, Mistake, Mistakes
from eqprop.tracking.local import read_curves

MISSING = 'TensorBoard is not installed; pip install "eqprop[tensorboard]"'
_NO_HYPERPARAMETERS = ("paths.", "tracking.", "trainer.progress", "resume", "rerun")
_MISTAKE = ("index", "true", "predicted", "probability", "cost")
_CELL = 24  # pixels of a cell of the confusion matrix
_STATUS = {"done": "STATUS_SUCCESS", "failed": "STATUS_FAILURE", "interrupted": "STATUS_UNKNOWN"}


class TensorboardTracker(Tracker):
    """Writes ``<run folder>/tensorboard``: a tag for each metric, over the optimizer's steps.

    A relaxation curve becomes a small run of its own, over the relaxation's steps, so that
    TensorBoard overlays the curves of different epochs. A resumed run writes its folder anew from
    the run's own files: TensorBoard shows one run, without rows that were taken back.
    """

    def __init__(self) -> None:
        self._folder = Path()
        self._logdir: Path | None = None
        self._config: dict[str, Any] = {}
        self._step = 0
        self._writer: Any = None

    @staticmethod
    def check_config(config: Any) -> None:
        """Raise ValueError, with one line, where TensorBoard is not installed."""
        if importlib.util.find_spec("tensorboard") is None:
            raise ValueError(f"tracking=tensorboard: {MISSING}")

    def start(self, run: RunInfo) -> None:
        """Open the event file. Raises ConfigError if TensorBoard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(MISSING) from error
        self._folder = run.folder / "tensorboard"
        inside = run.folder.absolute().is_relative_to(run.outputs.absolute())
        self._logdir = run.outputs if inside else run.folder
        self._config, self._step = dict(run.config), 0
        times = _wall_times(self._folder)
        shutil.rmtree(self._folder, ignore_errors=True)
        _silence_writer_threads()
        # purging makes a TensorBoard that is running forget what it has read of the folder
        self._writer = SummaryWriter(str(self._folder), purge_step=0 if times else None)
        text = json.dumps(self._config, indent=4).replace("\n", "\n    ")  # Markdown's code
        first = min(times.values(), default=None)
        self._writer.add_text("configuration", f"    {text}", 0, walltime=first)
        if run.resumed:
            for row in read_rows(run.folder):
                self._log(row, times.get(int(row["step"])))
            for curve in read_curves(run.folder):
                self._curve(curve)
        self._writer.flush()

    def log(self, row: Row) -> None:
        self._log(row)
        self._writer.flush()  # else a killed run would lose the rows of two minutes

    def show(self, name: str, item: object, step: int) -> None:
        """Write a curve's run, or the confusion matrix or mistakes as an image and a table."""
        if isinstance(item, Curve):
            self._curve(item)
        elif isinstance(item, ConfusionMatrix):
            counts = np.array(item.counts, dtype=np.float64)
            share = counts / np.maximum(counts.sum(1, keepdims=True), 1)  # of the true class
            image = np.kron((255 * share).round(), np.ones((_CELL, _CELL))).astype(np.uint8)
            self._writer.add_image(name, image, step, dataformats="HW")
            rows = zip(item.classes, *zip(*item.counts, strict=True), strict=True)
            self._table(name, ("true \\ predicted", *item.classes), rows, step)
        elif isinstance(item, Mistakes):
            images = [mistake.picture for mistake in item.worst if mistake.picture is not None]
            if images:
                batch = np.stack([image.reshape(*image.shape[:2], -1) for image in images])
                self._writer.add_images(name, batch, step, dataformats="NHWC")
            self._table(name, _MISTAKE, [_mistake(m, item.classes) for m in item.worst], step)

    def finish(self, summary: Mapping[str, Any], state: State) -> None:
        """Write the summary, and the configuration that it came from for the hparams page."""
        leaves = dict(flatten(self._config))
        chosen = {k: v for k, v in leaves.items() if not k.startswith(_NO_HYPERPARAMETERS)}
        for part in _hyperparameters(chosen, summary, state):
            self._writer.file_writer.add_summary(part)
        self._log(summary)
        self._writer.close()

    def abandon(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError, ValueError):
                writer.close()

    def location(self) -> str | None:
        if self._logdir is None:
            return None
        return f"tensorboard --logdir {shlex.quote(str(self._logdir))}"

    def _log(self, row: Row, time: float | None = None) -> None:
        self._step = int(row.get("step", self._step))
        for name, value in row.items():
            # what is not finite cannot be drawn
            if name != "step" and value is not None and math.isfinite(value):
                self._writer.add_scalar(name, value, self._step, walltime=time)

    def _curve(self, curve: Curve) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = self._folder / "curves" / f"epoch-{curve.epoch:04d}"
        with SummaryWriter(str(folder)) as writer:
            for name, values in (("energy", curve.energy), ("residual", curve.residual)):
                for step, value in enumerate(values):
                    if math.isfinite(value):
                        writer.add_scalar(f"curves/{curve.phase}_{name}", value, step)

    def _table(self, name: str, header: Any, rows: Any, step: int) -> None:
        lines = [header, ["---"] * len(header), *rows]
        markdown = "\n".join("|" + "|".join(map(str, line)) + "|" for line in lines)
        self._writer.add_text(name, markdown, step)


def _mistake(m: Mistake, classes: Sequence[str]) -> tuple[Any, ...]:
    words = m.index, classes[m.target], classes[m.predicted]
    return *words, f"{m.probability:.4f}", f"{m.cost:.4g}"


def _silence_writer_threads() -> None:
    """Print no traceback of a writer's thread (a full disk): the next call raises the error."""
    hook = threading.excepthook

    def report(failed: threading.ExceptHookArgs) -> None:
        if type(failed.thread).__name__ != "_AsyncWriterThread":
            hook(failed)

    threading.excepthook = report


def _hyperparameters(chosen: Mapping[str, Any], results: Mapping[str, Any], state: State) -> Any:
    """A run's line on the hparams page. ``SummaryWriter.add_hparams`` would make it another run."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from torch.utils.tensorboard.summary import hparams

    plain = {k: v if type(v) in (int, float) else str(v) for k, v in chosen.items()}
    experiment, start, end = hparams(plain, dict(results))  # type: ignore[no-untyped-call]
    data = end.value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(data.content)
    content.session_end_info.status = _STATUS[state]
    data.content = content.SerializeToString()
    return experiment, start, end


def _wall_times(folder: Path) -> dict[int, float]:
    """When the numbers of each step were written into the event files in ``folder``."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    found: dict[int, float] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in LegacyEventFileLoader(str(path)).Load():
            if any(value.HasField("simple_value") for value in event.summary.value):
                found.setdefault(event.step, event.wall_time)
    return found
