"""How benchmark.py shows the times of a training step: a table for each point, and a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from _common import Row, show

from eqprop.report.figure import BLUE, GREY, INK, RED, pyplot, save

AXES = {
    "steps": "relaxation steps a phase",
    "batch": "batch size",
    "width": "units a hidden layer",
    "depth": "hidden layers",
}
_MARKS = {
    "euler": "o",
    "newton": "s",
    "exact": "D",
    "anderson": "^",
    "autograd": "x",
    "script": "+",
}


def show_steps(rows: Sequence[Row]) -> None:
    """One table for all cases at one point."""
    point = rows[0]["point"]
    size = f"batch {point['batch']}, {point['depth']} × {point['width']} hidden units"
    title = f"One training step: {size}" + (f", {point['steps']} steps" if point["steps"] else "")

    def ratio(name: str) -> Callable[[Row], str]:
        return lambda row: f"{row[name]['median']:.2f}" if row[name] else ""

    columns = {
        "case": lambda row: row["case"],
        "steps": lambda row: str(row["relaxation_steps"] or ""),
        "ms": lambda row: f"{row['median_s'] * 1e3:.2f}",
        "quartiles": lambda row: f"{row['q1_s'] * 1e3:.2f}–{row['q3_s'] * 1e3:.2f}",
        "/ backprop": ratio("vs_backprop"),
        "/ floor": ratio("vs_floor"),
        "autograd /": ratio("autograd_over_this"),
        "script /": ratio("script_over_this"),
    }
    show(title, rows, columns)


def plot(rows: Sequence[Row], path: str) -> None:
    """Draw the time over backprop's against every axis that varies, or per case where none does."""
    plt = pyplot()
    shown = [row for row in rows if row["case"] != "backprop"]
    axes = [axis for axis in AXES if len({row["point"][axis] for row in rows}) > 1]
    if axes:
        figure, panels = plt.subplots(
            1, len(axes), figsize=(2.9 * len(axes) + 2.6, 4.2), sharey=True, squeeze=False,
            layout="constrained",
        )  # fmt: skip
        for ax, axis in zip(panels[0], axes, strict=True):
            _draw_axis(ax, axis, _lines(axis, shown, rows[0]["point"]))
        panels[0][0].set_ylabel("time of a training step / backprop's")
        panels[0][-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    else:
        figure, ax = plt.subplots(figsize=(7, 0.45 * len(shown) + 1.2), layout="constrained")
        _draw_cases(ax, shown)
    save(figure, path)
    plt.close(figure)


def _draw_axis(ax: Any, axis: str, lines: dict[str, list[tuple[float, float]]]) -> None:
    for case, points in lines.items():
        ax.plot(*zip(*sorted(points), strict=True), label=case, **_look(case))
    ax.axhline(1.0, color=INK, lw=0.8)
    ax.set(xlabel=AXES[axis], yscale="log", xscale="linear" if axis == "depth" else "log")
    ticks = sorted({x for points in lines.values() for x, _ in points})
    ax.set_xticks(ticks, [str(tick) for tick in ticks], rotation=45)
    ax.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.minorticks_off()


def _lines(axis: str, rows: Sequence[Row], base: Row) -> dict[str, list[tuple[float, float]]]:
    """case → its points (x, ratio), all other axes at the base."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        point = row["point"]
        x = row["steps_per_phase"] if axis == "steps" else point[axis]
        at_base = all(point[other] == base[other] for other in AXES if other != axis)
        if at_base and x is not None:
            lines.setdefault(row["case"], []).append((x, row["vs_backprop"]["median"]))
    return lines


def _draw_cases(ax: Any, rows: Sequence[Row]) -> None:
    for i, row in enumerate(rows):
        ratio, look = row["vs_backprop"], _look(row["case"])
        ax.plot([ratio["q1"], ratio["q3"]], [i, i], color=look["color"], lw=2)
        ax.plot(ratio["median"], i, marker=look["marker"] or "o", color=look["color"], ls="")
    ax.axvline(1.0, color=INK, lw=0.8)
    ax.set_yticks(range(len(rows)), [row["case"] for row in rows])
    ax.invert_yaxis()
    ax.set(xscale="log", xlabel="time of a training step / backprop's (median, quartiles)")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _look(case: str) -> dict[str, Any]:
    energy, _, solver = case.replace(",", "").partition(" ")
    line = {"autograd": ":", "script": ":"}.get(solver, "--" if energy == "floor" else "-")
    return {
        "color": {"gaussian": BLUE, "hopfield": RED}.get(energy, GREY),
        "ls": line,
        "marker": _MARKS.get(solver),
        "ms": 5,
        "lw": 1.0 if energy == "floor" else 1.8,
    }
