"""What a page on runs says, as plain data: the template and the script on the page show it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from eqprop.report import charts, curves
from eqprop.report.curves import Chart
from eqprop.report.runs import (
    Point,
    differing_settings,
    is_parameter,
    own_overrides,
    points_of,
    shared_start,
)
from eqprop.run.reading import Run, read_object
from eqprop.run.text import flatten, number, one_line, plain, yaml_word

_DETAILED = 40  # runs of a sweep whose relaxations and mistakes are on the page: the best ones
_COLUMNS, _AXES = 12, 9  # settings in the table at first, and in the parallel coordinates
_ACCURACIES = ("accuracy/test", "accuracy/validation", "accuracy/train")

Column = dict[str, Any]


def content(folder: Path, runs: Sequence[Run], start: Path) -> dict[str, Any]:
    """What the page in ``start`` says on ``runs``, which were found in ``folder``."""
    drawn, once = curves.charts_of(runs)
    points = points_of(runs)
    order = sorted(
        range(len(runs)), key=lambda i: (runs[i].objective is None, -(runs[i].objective or 0))
    )
    rows: list[dict[str, Any]] = [
        {"name": name_of(run, folder), "state": run.state, "failure": run.failure, "words": own,
         "link": link(run.folder, start)}
        for run, own in zip(runs, own_overrides(runs), strict=True)
    ]  # fmt: skip
    names = [row["name"] for row in rows]
    columns = _columns(runs, names)
    parameters = list(dict.fromkeys(key for point in points for key in point.settings))
    best = next((i for i in order if runs[i].state in ("done", "running")), 0)
    details = [(rows[i]["name"], charts.details(runs[i])) for i in order[:_DETAILED]]
    environment = read_object(runs[0].folder / "environment.json", []) if len(runs) == 1 else {}
    axes = parameters[:_AXES] if len(points) > 1 else []
    return {
        "title": one_line(folder.resolve().name or folder.resolve()),
        "objective": curves.objective_of(runs),
        "cut": shared_start(names),
        "folder": one_line(folder.resolve()),
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "runs": rows,
        "states": Counter(run.state for run in runs).most_common(),
        "best": rows[best],
        "results": [(c["key"], c["cells"][best]) for c in columns if c["result"]],
        "problems": [
            f"{row['name']}: {problem}"
            for row, run in zip(rows, runs, strict=True)
            for problem in run.problems
        ],
        "columns": columns,
        "points": [(point, mean_text(point)) for point in points],
        "parameters": parameters,
        "charts": drawn,
        "once": [(name, extent([run.last.get(name) for run in runs])) for name in once],
        "details": [
            (name, found | {"still": [(title, extent(values)) for title, values in found["still"]]})
            for name, found in details
            if any(found.values())
        ],
        "facts": [(key, plain(value)) for key, value in flatten(environment)],
        "shared": _shared(runs),
        "shown": shown,
        "data": _data(rows, columns, drawn)
        | {"parallel": _parallel(columns, axes, runs), "cut": shared_start(names)},
    }


def _data(rows: Sequence[Any], columns: Sequence[Column], drawn: Sequence[Chart]) -> dict[str, Any]:
    """What the script on the page draws."""
    return {
        "columns": [{**column, "cells": None} for column in columns],
        "runs": list(zip(*(column["cells"] for column in columns), strict=True)),
        "links": [row["link"] for row in rows],
        "labels": [
            "<br>".join(map(charts.label, [row["name"], *row["words"].split()])) for row in rows
        ],
        "charts": [
            {"axis": chart.axis, "log": chart.log, "range": chart.range,
             "metrics": [(name, charts.label(name)) for name in chart.curves]}
            for chart in drawn
        ],
        "curves": curves.packed(drawn, len(rows)),
    }  # fmt: skip


def shown(value: Any) -> str:
    """A cell as a person reads it: numbers with four digits."""
    if number(value) is not None:
        return f"{value:.4g}"
    return charts.MISSING if value is None else yaml_word(value)


def mean_text(point: Point) -> str:
    """The mean with its standard error, if it has one."""
    return f"{point.mean:.5g} ± {point.error:.2g}" if point.error else shown(point.mean)


def extent(values: Sequence[float | None]) -> str:
    """A number, or from the lowest to the highest."""
    known = [value for value in values if value is not None]
    ends = map(shown, (min(known), max(known)) if known else (None,))
    return " – ".join(dict.fromkeys(ends))


def name_of(run: Run, top: Path) -> str:
    """The run's path below ``top``, or its folder's name."""
    relative = os.path.relpath(run.folder, top)
    return one_line(relative if relative != "." else run.folder.resolve().name)


def link(folder: Path, start: Path) -> str:
    """A relative address that leads from ``start`` to ``folder``, whatever it is called."""
    return quote(os.fsencode(os.path.relpath(folder.resolve(), start.resolve()))) + "/"


def _columns(runs: Sequence[Run], names: Sequence[str]) -> list[Column]:
    """The columns of the table of runs, the name first."""
    metrics, objective = curves.names_of(runs), curves.objective_of(runs)
    keys = sorted(differing_settings(runs), key=lambda key: (not is_parameter(key), key != "seed"))
    first = [key for key in keys if is_parameter(key) or key == "seed"][:_COLUMNS]
    known = [name for name in _ACCURACIES if name in metrics]
    others = [name for name in metrics if name not in known]
    tested = {"accuracy/test"} - {objective}
    failures = [run.failure for run in runs]
    # key, whether it is shown at first, whether it is a result, cells
    made: list[tuple[str, bool, bool, Sequence[Any]]] = [
        ("run", True, False, names),
        ("state", True, False, [run.state for run in runs]),
        ("objective", True, True, [run.objective for run in runs]),
        *((key, key in first, False, [run.config.get(key) for run in runs]) for key in keys),
        *((f"best {name}", name in tested, name in tested, [run.best(name) for run in runs])
          for name in known),
        ("best epoch", True, True, [run.selected.get("epoch") for run in runs]),
        *((f"last {name}", True, True, [run.last.get(name) for run in runs]) for name in known),
        ("epochs", True, True, [run.epochs for run in runs]),
        ("seconds", True, True, [run.seconds for run in runs]),
        ("reason", any(failures), False, failures),
        *((f"last {name}", False, False, [run.last.get(name) for run in runs]) for name in others),
    ]  # fmt: skip
    return [
        {"key": key, "shown": shown, "result": result,
         "cells": [curves.significant(value, 9) for value in cells],
         "numeric": any(number(value) is not None for value in cells)}
        for key, shown, result, cells in made
    ]  # fmt: skip


def _parallel(columns: Sequence[Column], keys: Sequence[str], runs: Sequence[Run]) -> Any:
    """The axes of the parallel coordinates, for the runs with an objective and the pruned ones.

    The first ``settings`` axes are settings; the objective comes last. That of a pruned run is the
    best that it had reached.
    """
    by = curves.objective_of(runs)
    values = [run.best(by) if run.state == "pruned" else run.objective for run in runs]
    rows = [i for i, value in enumerate(values) if value is not None]
    places = {columns[i]["key"]: i for i in reversed(range(len(columns)))}
    cells = {key: [columns[places[key]]["cells"][i] for i in rows] for key in [*keys, "state"]}
    keys = [key for key in keys if len(set(map(repr, cells[key]))) > 1]
    if len(rows) < 2 or not keys:
        return None
    short = [key.rpartition(".")[2] for key in keys]
    titles = {k: name if short.count(name) == 1 else k for k, name in zip(keys, short, strict=True)}
    titles |= {"state": "state"} if len(set(cells["state"])) > 1 else {}
    cells["objective"] = [curves.significant(values[i], 9) for i in rows]
    axes = [
        {"column": places[key], **charts.dimension(title, cells[key])}
        for key, title in {**titles, "objective": "objective"}.items()
    ]
    return {"axes": axes, "rows": rows, "settings": len(keys)}


def _shared(runs: Sequence[Run]) -> list[tuple[str, Any]]:
    """The settings that are the same in all runs."""
    configs = [run.config for run in runs if run.composed]
    every, differ = (configs or [{}])[0], differing_settings(runs)
    return [(key, value) for key, value in every.items() if key not in differ]
