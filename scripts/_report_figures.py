"""The figures beside scripts/report.py's page, for papers and slides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from _figure import BLUE, COLOURS, GREY, INK, RED, pyplot, save

from eqprop.report import curves
from eqprop.report.evaluation import evaluation_of
from eqprop.report.payload import best_first, own_overrides
from eqprop.report.points import Point, points_of
from eqprop.report.reading import Run
from eqprop.report.tolerant import readable
from eqprop.run.files import one_line

_TOP, _PANELS, _COLUMNS, _FAILURES = 6, 12, 3, 40


def draw_all(runs: Sequence[Run], page: Path) -> None:
    """Write every figure that there is something for: curves, parameters, relaxation, …

    Raises:
        UserError: if matplotlib is missing or a file cannot be written.
    """
    plt = pyplot()
    drawers: dict[str, Callable[[Any, Sequence[Run]], Any]] = {
        "curves": _curves,
        "parameters": _parameters,
        "relaxation": _relaxation,
        "confusion": _confusion,
        "failures": _failures,
    }
    stem = "" if page.stem == "index" else f"{page.stem}-"
    for name, draw in drawers.items():
        figure = draw(plt, runs)
        if figure is not None:
            save(figure, str(page.with_name(f"{stem}{name}.png")))
            plt.close(figure)


def _curves(plt: Any, runs: Sequence[Run]) -> Any:
    """Accuracy, energy, cost and relaxation; of many runs the best in colour."""
    names = [n for n in curves.names_of(runs) if n.startswith(curves.FIRST)][:_PANELS]
    if not names:
        return None
    axes = curves.axes_of(runs, names)
    figure, panels = _grid(plt, len(names))
    order = best_first(runs)
    for panel, name in zip(panels, names, strict=False):
        behind, values = [], []
        for place, i in enumerate(order):
            x, y = runs[i].points(name, axes[name])
            if not x:
                continue
            x, y = curves.evenly(x, 500), [float("nan") if v is None else v for v in y]
            y = curves.evenly(y, 500)
            values += y
            if place < _TOP:
                marker = "o" if len(x) == 1 else None
                panel.plot(
                    x, y, color=COLOURS[place], marker=marker, ms=3, lw=1.4, zorder=9 - place
                )
            else:
                behind.append(list(zip(x, y, strict=True)))
        if behind:
            from matplotlib.collections import LineCollection

            panel.add_collection(LineCollection(behind, colors=GREY, lw=0.5, alpha=0.25, zorder=1))
            panel.autoscale_view()
        _log_where_wide(panel.set_yscale, values, name)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.set(title=_plain(name), xlabel=axes[name])
    return figure


def _parameters(plt: Any, runs: Sequence[Run]) -> Any:
    """The objective against each setting that differs."""
    points = [point for point in points_of(runs) if point.mean is not None]
    keys = list(dict.fromkeys(key for point in points for key in point.settings))[:_PANELS]
    if len(points) < 2 or not keys:
        return None
    figure, panels = _grid(plt, len(keys))
    for panel, key in zip(panels, keys, strict=False):
        _parameter(panel, key, [point for point in points if key in point.settings])
    panels[0].set_ylabel("objective")
    return figure


def _parameter(panel: Any, key: str, points: Sequence[Point]) -> None:
    values = [point.settings[key] for point in points]
    x: list[Any] = values
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values):
        names = list(dict.fromkeys(map(str, values)))
        x = [names.index(str(v)) for v in values]
        panel.set_xticks(range(len(names)), [_plain(n)[:14] for n in names], rotation=30)
    else:
        _log_where_wide(panel.set_xscale, values, key, 20)
    errors = [point.error or 0.0 for point in points]
    panel.errorbar(x, [p.mean for p in points], errors, color=BLUE, fmt="o", ms=4, lw=1, alpha=0.8)
    panel.set(title=_plain(key))


def _relaxation(plt: Any, runs: Sequence[Run]) -> Any:
    """Energy against relaxation steps of the best run that recorded it, early light, late dark."""
    found = next((r for i in best_first(runs) if (r := curves.relaxations(runs[i]))), [])
    found = [row for row in found if row["energy"]]
    phases = list(dict.fromkeys(row["phase"] for row in found))[:_COLUMNS]
    if not phases:
        return None
    figure, panels = _grid(plt, len(phases))
    for panel, phase in zip(panels, phases, strict=False):
        rows = [row for row in found if row["phase"] == phase]
        for i, row in enumerate(rows):
            x, y = row["energy"]
            y = [float("nan") if v is None else v for v in y]
            shade = plt.get_cmap("viridis_r")(0.15 + 0.85 * i / max(len(rows) - 1, 1))
            panel.plot(x, y, color=shade, label=f"epoch {row['epoch']:g}" if row["epoch"] else None)
        panel.set(title=_plain(f"energy, {phase} phase"), xlabel="relaxation step")
        _name_ends(panel)
    return figure


def _name_ends(panel: Any) -> None:
    handles, labels = panel.get_legend_handles_labels()
    if labels:
        ends = sorted({0, len(labels) - 1})
        panel.legend([handles[i] for i in ends], [labels[i] for i in ends])


def _confusion(plt: Any, runs: Sequence[Run]) -> Any:
    """The confusion matrix of the best run that recorded one."""
    every = (evaluation_of(runs[i].evaluation) for i in best_first(runs))
    found = next((one for one in every if one and one["confusion"]), None)
    if found is None:
        return None
    rows, names = found["confusion"], [_plain(name) for name in found["classes"]]
    shares = [[(v or 0) / (sum(v or 0 for v in row) or 1) for v in row] for row in rows]
    size = min(max(0.5 * len(names) + 1, 3), 16)
    figure, panel = plt.subplots(figsize=(size, size))
    panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    panel.set_xticks(range(len(names)), names)
    panel.set_yticks(range(len(names)), names)
    panel.set(xlabel="predicted class", ylabel="true class")
    panel.grid(False)
    if len(names) <= 20:
        for i, row in enumerate(rows):
            for j, value in enumerate(row):
                colour = "white" if shares[i][j] > 0.5 else RED if i != j else "black"
                if value:
                    panel.text(j, i, f"{value:g}", ha="center", va="center", color=colour, size=8)
    figure.tight_layout()
    return figure


def _failures(plt: Any, runs: Sequence[Run]) -> Any:
    """Which runs failed, with what, and why, as text; of many the first."""
    words = own_overrides(runs)
    failed = [i for i, run in enumerate(runs) if run.failure is not None]
    if not failed:
        return None
    lines = []
    for i in failed[:_FAILURES]:
        heads = f"{runs[i].state}  {runs[i].folder.name}  {words[i]}", runs[i].failure
        lines += [*(fill(one_line(readable(str(text))), 120) for text in heads), ""]
    if len(failed) > _FAILURES:
        lines.append(f"and {len(failed) - _FAILURES} more")
    text = "\n".join(lines)
    height = 0.175 * text.count("\n") + 0.6
    figure = plt.figure(figsize=(9, height))
    title = f"What failed ({len(failed)} of {len(runs)})"
    figure.text(0.02, 1 - 0.1 / height, title, va="top", weight="bold")
    figure.text(0.02, 1 - 0.45 / height, _plain(text), va="top", color=INK, size=9, linespacing=1.3)
    return figure


def _grid(plt: Any, count: int) -> tuple[Any, list[Any]]:
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(3.9 * columns, 2.9 * rows), squeeze=False, layout="constrained"
    )
    flat = list(panels.flat)
    for panel in flat[count:]:
        panel.set_visible(False)
    return figure, flat[:count]


def _log_where_wide(setter: Any, values: Sequence[float], name: str, factor: float = 50) -> None:
    known = [v for v in values if v == v]
    wide = known and min(known) > 0 and max(known) / min(known) >= factor
    if wide and not name.startswith("accuracy"):
        setter("log")


def _plain(text: str) -> str:
    """Text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")
