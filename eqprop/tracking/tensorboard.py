"""Runs in TensorBoard: event files in the run's own folder, no account, no network.

The package, an extra, is imported when a run starts.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eqprop.run.reading import read_rows
from eqprop.run.text import flatten
from eqprop.tracking.base import (
    ConfusionMatrix,
    Curve,
    Mistakes,
    Picture,
    Row,
    RunInfo,
    State,
    Tracker,
)
from eqprop.tracking.local import read_curves

_NO_HYPERPARAMETERS = (
    *("paths.", "tracking.", "trainer.progress", "trainer.summary", "resume", "rerun"),
)


class TensorboardTracker(Tracker):
    """Writes ``<run folder>/tensorboard``: a tag for each metric, over the optimizer's steps.

    A relaxation curve has a tag of its own, ``curves/<phase>_energy/<epoch>``, over the
    relaxation's steps; the page of custom scalars lays those of all epochs over one another. A
    resumed run writes its folder anew from
    the run's own files: TensorBoard shows one run, without rows that were taken back.
    """

    def __init__(self) -> None:
        self._folder = Path()
        self._location: str | None = None
        self._config: dict[str, Any] = {}
        self._step = 0
        self._writer: Any = None
        self._families: dict[str, Any] = {}  # the charts of custom scalars

    @staticmethod
    def check_config(config: Any) -> None:
        """Raise ValueError, with one line, where TensorBoard is not installed."""
        if importlib.util.find_spec("tensorboard") is None:
            how = 'TensorBoard is not installed; pip install "eqprop[tensorboard]"'
            raise ValueError(f"tracking=tensorboard: {how}")

    def start(self, run: RunInfo) -> None:
        """Open the event file."""
        from torch.utils.tensorboard import SummaryWriter

        self._folder = run.folder / "tensorboard"
        inside = run.folder.absolute().is_relative_to(run.outputs.absolute())
        # of a day or a sweep: in a narrow list a longer path hides what tells runs apart
        logdir = run.folder.parent if inside else run.folder
        self._location = f"tensorboard --logdir {shlex.quote(os.path.relpath(logdir))}"
        self._config, self._step, self._families = dict(run.config), 0, {}
        shutil.rmtree(self._folder, ignore_errors=True)
        # purging makes a TensorBoard that is running forget what it has read of the folder
        self._writer = SummaryWriter(str(self._folder), purge_step=0 if run.resumed else None)
        text = json.dumps(self._config, indent=4).replace("\n", "\n    ")  # Markdown's code
        self._writer.add_text("configuration", f"    {text}", 0)
        if run.resumed:
            for row in read_rows(run.folder):
                self.log(row)
            for curve in read_curves(run.folder):
                self.show("curves", curve, curve.step)

    def log(self, row: Row) -> None:
        self._step = int(row.get("step", self._step))
        for name, value in row.items():
            # what is not finite cannot be drawn
            if name != "step" and value is not None and math.isfinite(value):
                self._writer.add_scalar(name, value, self._step)
        self._writer.flush()  # else a killed run would lose the rows of two minutes

    def show(self, name: str, item: object, step: int) -> None:
        """Write a curve, the confusion matrix as a table, mistakes with images, a picture."""
        if isinstance(item, Curve):
            for part, values in (("energy", item.energy), ("residual", item.residual)):
                family = f"curves/{item.phase}_{part}"
                for place, value in enumerate(values):
                    if math.isfinite(value):
                        self._writer.add_scalar(f"{family}/{item.epoch:04d}", value, place)
                self._families[family] = ["Multiline", [f"{re.escape(family)}/.*"]]
        elif isinstance(item, ConfusionMatrix):
            rows = zip(item.classes, *zip(*item.counts, strict=True), strict=True)
            self._table(name, ("true \\ predicted", *item.classes), rows, step)
        elif isinstance(item, Picture):
            how = "HW" if item.pixels.ndim == 2 else "HWC"
            self._writer.add_image(name, item.pixels, step, dataformats=how)
        elif isinstance(item, Mistakes):
            images = [mistake.picture for mistake in item.worst if mistake.picture is not None]
            if images:
                batch = np.stack([image.reshape(*image.shape[:2], -1) for image in images])
                self._writer.add_images(name, batch, step, dataformats="NHWC")
            lines = [
                (m.index, item.classes[m.target], item.classes[m.predicted], m.probability, m.cost)
                for m in item.worst
            ]
            self._table(name, ("index", "true", "predicted", "probability", "cost"), lines, step)

    def finish(self, summary: Mapping[str, Any], state: State) -> None:
        """Write the summary; of a run that is done also on the page of hyperparameters."""
        if self._families:
            self._writer.add_custom_scalars({"relaxations, a line an epoch": self._families})
        if state == "done":
            chosen = {
                key: value if type(value) in (int, float) else str(value)
                for key, value in flatten(self._config)
                if not key.startswith(_NO_HYPERPARAMETERS)
            }
            self._writer.add_hparams(chosen, dict(summary), run_name=".", global_step=self._step)
        else:
            self.log(summary)
        self._writer.close()

    def abandon(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def location(self) -> str | None:
        return self._location

    def _table(self, name: str, header: Sequence[str], rows: Iterable[Any], step: int) -> None:
        lines = [header, ["---"] * len(header), *rows]
        cells = [[f"{x:.4g}" if isinstance(x, float) else str(x) for x in line] for line in lines]
        self._writer.add_text(name, "\n".join(f"|{'|'.join(line)}|" for line in cells), step)
