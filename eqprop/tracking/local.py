"""The run's own files: ``metrics.jsonl``, ``curves.jsonl``, ``evaluation.json``, ``pictures/``."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from eqprop.run.errors import RunError
from eqprop.run.files import write_atomically
from eqprop.run.reading import read_lines
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

METRICS, CURVES, EVALUATION = "metrics.jsonl", "curves.jsonl", "evaluation.json"


class LocalFiles(Tracker):
    """The authoritative record; a file that cannot be written ends the run (RunError).

    A line of ``metrics.jsonl`` is a row, one of ``curves.jsonl`` a Curve. ``evaluation.json`` is of
    the end: ``confusion`` (a row for each true class), ``classes``, ``mistakes`` (the worst first).
    A number that is not finite becomes null. The newest picture called a/b is ``pictures/a/b.png``;
    the mistakes are one picture, side by side in their order.
    """

    essential: ClassVar[bool] = True

    def __init__(self) -> None:
        self._folder = Path()
        self._rows: Any = None
        self._evaluation: dict[str, Any] = {}

    def start(self, run: RunInfo) -> None:
        """Open the rows for appending; curves that a resumed run will record again go."""
        self._folder = run.folder
        with self._writing(METRICS) as path:
            self._rows = open(path, "a", encoding="utf-8")  # noqa: SIM115
        if run.resumed:
            kept = [vars(curve) for curve in read_curves(run.folder) if curve.epoch < run.epoch]
            with self._writing(CURVES) as path:
                write_atomically(path, "".join(map(_line, kept)).encode())

    def log(self, row: Row) -> None:
        """Append a row, and flush it."""
        with self._writing(METRICS):
            self._rows.write(_line(row))
            self._rows.flush()

    def sync(self) -> int:
        """Flush the rows to the disk; returns how many bytes they are."""
        with self._writing(METRICS):
            os.fsync(self._rows.fileno())
            return os.fstat(self._rows.fileno()).st_size

    def show(self, name: str, item: object, step: int) -> None:
        """Write a curve's line, a picture, or what is known of the evaluation so far."""
        if isinstance(item, Curve):
            with self._writing(CURVES) as path, open(path, "a", encoding="utf-8") as file:
                file.write(_line(vars(item)))
            return
        if isinstance(item, Picture):
            with self._writing(f"pictures/{name}.png") as path:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, _png(item))
            return
        if isinstance(item, ConfusionMatrix):
            self._evaluation |= {"confusion": item.counts, "classes": item.classes}
        elif isinstance(item, Mistakes):
            worst = [{k: v for k, v in vars(m).items() if k != "picture"} for m in item.worst]
            self._evaluation |= {"classes": item.classes, "mistakes": worst}
            shown = [m.picture for m in item.worst if m.picture is not None]
            if shown and len(shown) == len(worst):  # side by side, in the order of the list
                self.show(name, Picture(np.concatenate(shown, axis=1)), step)
        else:
            return
        with self._writing(EVALUATION) as path:
            write_atomically(path, _line(self._evaluation).encode())

    def finish(self, summary: Mapping[str, Any], state: State) -> None:
        """Close the rows: the summary belongs to ``status.json``."""
        file, self._rows = self._rows, None
        if file is not None:  # else interrupted before it had begun
            with self._writing(METRICS):
                file.close()

    def location(self) -> str | None:
        """The path of the rows."""
        return str(self._folder / METRICS)

    @contextmanager
    def _writing(self, name: str) -> Iterator[Path]:
        try:
            yield self._folder / name
        except OSError as error:
            raise RunError(
                f"cannot write {self._folder / name}: {error.strerror or error}; free the disk or "
                "set paths.outputs to a folder that can be written"
            ) from error


def read_curves(folder: Path) -> Iterator[Curve]:
    """The curves in a run's folder, oldest first; a line that was being written is left out."""
    for found in read_lines(folder / CURVES, []):
        energy, residual = (
            tuple(math.nan if value is None else value for value in found[key])
            for key in ("energy", "residual")
        )
        yield Curve(found["epoch"], found["step"], found["phase"], energy, residual)


def _png(picture: Picture) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture.pixels).save(file, "PNG")
    return file.getvalue()


def _line(item: Mapping[str, Any]) -> str:
    return json.dumps(_strict(item), allow_nan=False) + "\n"


def _strict(value: Any) -> Any:
    """``value`` as JSON knows it: numbers of numpy or torch become Python's, NaN and inf None."""
    if isinstance(value, Mapping):
        return {name: _strict(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(part) for part in value]
    if hasattr(value, "item"):
        return _strict(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
