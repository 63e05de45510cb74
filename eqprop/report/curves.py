"""Which curves a page draws, and with how few points each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from eqprop.run.reading import Points, Run
from eqprop.run.text import number

T = TypeVar("T")

FIRST = ("accuracy/test", "accuracy/validation", "accuracy/", "cost/", "energy/", "relaxation/")
BUDGET = 400_000  # points of all curves on a page, about
_MOST, _FEWEST = 500, 6  # points of a curve


@dataclass
class Chart:
    """Curves that are drawn together, over the same axis: metric → the points of each run."""

    title: str
    axis: str
    curves: dict[str, list[Points]] = field(default_factory=dict)

    @property
    def log(self) -> bool:
        """Whether its values are better read on a logarithmic axis."""
        return not self.title.startswith("accuracy") and spreads_widely(self._known)

    @property
    def range(self) -> list[float] | None:
        """What the axis shows of a number that never changes, from 0 on; None: what fits."""
        values = set(self._known)
        return sorted([0.0, 2 * values.pop()]) if len(values) == 1 and values != {0} else None

    @property
    def _known(self) -> list[float]:
        points = (points for curves in self.curves.values() for points in curves)
        return [value for _, values in points for value in values if value is not None]


def objective_of(runs: Sequence[Run]) -> str:
    """The metric whose best value is the objective: validation, or test if none is held back."""
    held_back = any("accuracy/validation" in run.metrics for run in runs)
    return "accuracy/validation" if held_back else "accuracy/test"


def names_of(runs: Sequence[Run]) -> list[str]:
    """All metrics: the objective's, other accuracies, cost, energy and relaxation, the others."""
    first = (objective_of(runs), *FIRST)
    names = {name for run in runs for name in run.metrics}
    return sorted(names, key=lambda name: ([not name.startswith(part) for part in first], name))


def charts_of(runs: Sequence[Run]) -> tuple[list[Chart], list[str]]:
    """The charts of a page, and the metrics that each run has measured at most once.

    Several runs have a chart for each metric; one run has its related metrics together.
    """
    once: list[str] = []
    charts: dict[tuple[str, str], Chart] = {}
    for name in names_of(runs):
        axis = "step" if any(_crowded(run, name) for run in runs) else "epoch"
        curves = [run.points(name, axis) for run in runs]
        if all(len(places) < 2 for places, _ in curves):
            once.append(name)
        else:
            title = name if len(runs) > 1 else _family(name)
            charts.setdefault((title, axis), Chart(title, axis)).curves[name] = curves
    titles = [title for title, _ in charts]
    for chart in charts.values():
        if titles.count(chart.title) > 1:
            chart.title += f" by {chart.axis}"
    return list(charts.values()), once


def packed(charts: Sequence[Chart], runs: int) -> list[dict[str, Any]]:
    """Each run's curves, metric → [places, values], with the digits that a screen can show."""
    share = BUDGET // max(runs * sum(len(chart.curves) for chart in charts), 1)

    def thin(values: Sequence[float | None]) -> list[float | None]:
        return [significant(value) for value in evenly(values, min(max(share, _FEWEST), _MOST))]

    found: list[dict[str, Any]] = [{} for _ in range(runs)]
    for chart in charts:
        for name, curves in chart.curves.items():
            for run, (places, values) in zip(found, curves, strict=True):
                if places:
                    run[name] = [thin(places), thin(values)]
    return found


def evenly(values: Sequence[T], most: int) -> Sequence[T]:
    """At most ``most`` of the values, the first and the last among them, evenly chosen."""
    if len(values) <= most:
        return values
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def significant(value: Any, digits: int = 6) -> Any:
    """A float with that many digits, or as the whole number that it is; anything else as it is."""
    if not isinstance(value, float):
        return value
    return int(value) if value.is_integer() else float(f"{value:.{digits}g}")


def spreads_widely(values: Sequence[float], factor: float = 50) -> bool:
    """Whether numbers are better read on a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) / min(values) >= factor


def _family(name: str) -> str:
    """What metrics of one kind and one unit have in common."""
    kind, _, layer = name.rpartition("/")
    if layer.isdigit():
        return kind
    head, _, tail = name.partition("/")
    unit = tail.rpartition("_")[2] if head in ("relaxation", "time") else ""
    return f"{head} {unit}".strip()


def _crowded(run: Run, name: str) -> bool:
    """Whether some epoch has several values of a metric, or none is known."""
    rows = run.metrics.get(name, [])
    places = {(number(row.get("epoch")), number(row.get("step"))) for row in rows}
    epochs = {epoch for epoch, _ in places}
    return None in epochs or len(epochs) < len(places)
