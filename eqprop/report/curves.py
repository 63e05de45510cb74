"""Curves small enough for a page: fewer points of each where there are many runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

from eqprop.report.reading import Run
from eqprop.report.tolerant import number, text_of

T = TypeVar("T")
Packed = tuple[list[float | None], list[float | None]]

FIRST = ("accuracy/", "energy/", "cost/", "relaxation/")
BUDGET = 400_000
"""Points of all curves on a page, about."""
_MOST, _FEWEST = 500, 12  # points of a curve
_RELAXATIONS, _STEPS = 16, 400  # curves of a phase, and points of each


def names_of(runs: Sequence[Run]) -> list[str]:
    """All metrics: accuracy, energy, cost and relaxation first, then the others."""
    names = sorted({name for run in runs for name in run.metrics})
    order = {
        name: next((i for i, p in enumerate(FIRST) if name.startswith(p)), 9) for name in names
    }
    return sorted(names, key=lambda name: (order[name], name))


def axes_of(runs: Sequence[Run], names: Sequence[str]) -> dict[str, str]:
    """What each metric is drawn over: the epoch, or the step if some epoch has it several times."""
    return {name: "step" if any(_crowded(run, name) for run in runs) else "epoch" for name in names}


def drawn(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """The metrics that fit on a page: where there are many runs, the first kinds only."""
    room = BUDGET // (_FEWEST * max(len(runs), 1))
    first = [name for name in names if name.startswith(FIRST)]
    return list(names) if len(names) <= room else first[: max(room, 1)]


def evenly(values: Sequence[T], most: int) -> Sequence[T]:
    """At most ``most`` of the values, the first and the last among them, evenly chosen."""
    if len(values) <= most:
        return values
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def packed(runs: Sequence[Run], axes: dict[str, str]) -> list[dict[str, Packed]]:
    """Each run's curves with the digits that a screen can show."""
    share = BUDGET // max(len(runs) * max(len(axes), 1), 1)
    most = min(max(share, _FEWEST), _MOST)
    return [
        {
            name: (
                [significant(x, 9) for x in evenly(points[0], most)],
                [significant(y) for y in evenly(points[1], most)],
            )
            for name, axis in axes.items()
            if (points := run.points(name, axis))[0]
        }
        for run in runs
    ]


def relaxations(run: Run) -> list[dict[str, Any]]:
    """A phase's energies and residuals against its steps: first, last and some between."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in run.relaxations:
        curves = {name: _numbers(row.get(name)) for name in ("energy", "residual")}
        if any(curves.values()):
            entry = {"epoch": number(row.get("epoch")), "step": number(row.get("step"))}
            phase = text_of(row.get("phase", "free"))
            found.setdefault(phase, []).append({"phase": phase, **entry, **curves})
    return [row for rows in found.values() for row in evenly(rows, _RELAXATIONS)]


def significant(value: float | None, digits: int = 6) -> float | None:
    """``value`` with that many digits; a whole number stays whole."""
    if value is None or not math.isfinite(value):
        return None
    if value == int(value) and abs(value) < 1e15:
        return int(value)
    return float(f"{value:.{digits}g}")


def _numbers(values: Any) -> list[list[float | None]]:
    """A list of numbers as [steps, values], or nothing."""
    if not isinstance(values, list) or not values:
        return []
    places = evenly(range(len(values)), _STEPS)
    return [list(places), [significant(number(values[i])) for i in places]]


def _crowded(run: Run, name: str) -> bool:
    rows = run.metrics.get(name, [])
    places = {(number(row.get("epoch")), number(row.get("step"))) for row in rows}
    epochs = {epoch for epoch, _ in places}
    return None in epochs or len(epochs) < len(places)
