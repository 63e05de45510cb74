"""The run's own files of non-scalar results: ``curves.jsonl`` and ``evaluation.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eqprop.run.files import write_atomically
from eqprop.tracking.base import Row, RunInfo, State, Tracker
from eqprop.tracking.items import ConfusionMatrix, Curve, Mistakes

CURVES = "curves.jsonl"
EVALUATION = "evaluation.json"


class LocalFiles(Tracker):
    """Appends each curve to ``curves.jsonl``; ``evaluation.json`` is of the end of the run.

    A line of the first holds ``epoch``, ``step``, ``phase``, ``energy`` and ``residual``; the
    second ``confusion`` (a row for each true class), ``classes`` and ``mistakes`` (the worst
    first). A number that is not finite becomes null.
    """

    def __init__(self) -> None:
        self._folder = Path()
        self._evaluation: dict[str, Any] = {}

    def start(self, run: RunInfo) -> None:
        """Remove the curves that a resumed run will record again."""
        self._folder = run.folder
        if run.resumed and (self._folder / CURVES).exists():
            kept = [curve for curve in read_curves(run.folder) if curve.epoch < run.epoch]
            write_atomically(self._folder / CURVES, "".join(map(_line, kept)).encode())

    def log(self, row: Row) -> None:
        """Nothing: numbers are in ``metrics.jsonl``."""

    def show(self, name: str, item: object, step: int) -> None:
        """Write a curve's line, or what is known of the evaluation so far."""
        if isinstance(item, Curve):
            with open(self._folder / CURVES, "a", encoding="utf-8") as file:
                file.write(_line(item))
            return
        if isinstance(item, ConfusionMatrix):
            self._evaluation |= {"confusion": item.counts, "classes": item.classes}
        elif isinstance(item, Mistakes):
            self._evaluation |= {"classes": item.classes, "mistakes": [*map(_plain, item.worst)]}
        else:
            return
        text = json.dumps(self._evaluation, allow_nan=False)
        write_atomically(self._folder / EVALUATION, text.encode() + b"\n")

    def finish(self, summary: Mapping[str, Any], state: State) -> None:
        """Nothing: what was shown is written."""


def read_curves(folder: Path) -> Iterator[Curve]:
    """The curves in a run's folder, oldest first; torn or foreign lines are left out."""
    try:
        lines = (folder / CURVES).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            found = json.loads(line)
            numbers = [
                tuple(math.nan if value is None else float(value) for value in found[key])
                for key in ("energy", "residual")
            ]
            yield Curve(int(found["epoch"]), int(found["step"]), str(found["phase"]), *numbers)
        except (ValueError, KeyError, TypeError):
            continue


def _line(curve: Curve) -> str:
    return json.dumps(_plain(curve), allow_nan=False) + "\n"


def _plain(item: Any) -> dict[str, Any]:
    """The fields of an item as strict JSON knows them; pictures are left out."""
    return {name: _finite(value) for name, value in asdict(item).items() if name != "picture"}


def _finite(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
