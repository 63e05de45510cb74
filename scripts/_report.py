"""How scripts/benchmark.py shows what it measured: tables on the terminal, and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from _figure import BLUE, GREY, INK, RED, label_ends, pyplot, save
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]
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


def console() -> Console:
    """The terminal, or a width that the tables fit into."""
    found = Console()
    return found if found.is_terminal else Console(width=110)


def show_steps(console: Console, rows: Sequence[Row]) -> None:
    """One table for all cases at one point."""
    point = rows[0]["point"]
    size = f"batch {point['batch']}, {point['depth']} × {point['width']} hidden units"
    title = f"One training step: {size}" + (f", {point['steps']} steps" if point["steps"] else "")
    ratios = ("vs_backprop", "vs_floor", "autograd_over_this", "script_over_this")
    over = ("/ backprop", "/ floor", "autograd /", "script /")
    table = table_of(title, ("case", "steps", "ms", "quartiles", *over))
    for row in rows:
        table.add_row(
            row["case"],
            str(row["relaxation_steps"] or ""),
            f"{row['median_s'] * 1e3:.2f}",
            f"{row['q1_s'] * 1e3:.2f}–{row['q3_s'] * 1e3:.2f}",
            *(_ratio(row[name]) for name in ratios),
        )
    console.print(table)


def show(console: Console, title: str, rows: Sequence[Row], columns: dict[str, Any]) -> None:
    """A table of rows; ``columns``: heading → what makes its cell of a row."""
    table = table_of(title, list(columns))
    for row in rows:
        if "error" not in row:
            table.add_row(*(cell(row) for cell in columns.values()))
    console.print(table)
    for row in rows:
        if "error" in row:
            console.print(f"{next(iter(columns.values()))(row)}: {row['error']}", markup=False)


def table_of(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    return table


def _ratio(spread: dict[str, float] | None) -> str:
    return "" if spread is None else f"{spread['median']:.2f}"


def plot(rows: Sequence[Row], path: str) -> None:
    """Time over backprop's against every axis that varies, or per case where none does."""
    plt = pyplot()
    base = rows[0]["point"]
    shown = [row for row in rows if row["vs_backprop"] is not None and row["case"] != "backprop"]
    axes = [axis for axis in AXES if len({row["point"][axis] for row in rows}) > 1]
    if not axes:
        _plot_cases(plt, shown, path)
        return
    figure, panels = plt.subplots(
        1, len(axes), figsize=(2.9 * len(axes) + 2.6, 4.2), sharey=True, squeeze=False
    )
    lines = [_lines(axis, shown, base) for axis in axes]
    for ax, axis, by_case in zip(panels[0], axes, lines, strict=True):
        for case, points in by_case.items():
            x, y = zip(*sorted(points), strict=True)
            ax.plot(x, y, **_look(case))
        ax.axhline(1.0, color=INK, lw=0.8)
        ax.set(xlabel=AXES[axis], yscale="log", xscale="linear" if axis == "depth" else "log")
        ticks = sorted({x for points in by_case.values() for x, _ in points})
        ax.set_xticks(ticks, [str(tick) for tick in ticks], rotation=45)
        ax.minorticks_off()
    panels[0][0].set_ylabel("time of a training step / backprop's")
    panels[0][0].yaxis.get_major_locator().set_params(subs=(1, 2, 5))
    panels[0][0].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panels[0][0].text(0.02, 1.0, " backprop = 1", va="bottom", fontsize=8, color=INK,
                      transform=panels[0][0].get_yaxis_transform())  # fmt: skip
    figure.tight_layout()
    figure.subplots_adjust(right=1 - 1.7 / figure.get_figwidth())
    ends = [(*max(p), case, _look(case)["color"]) for case, p in lines[-1].items()]
    label_ends(panels[0][-1], ends, gap=0.055)
    save(figure, path)
    plt.close(figure)


def _lines(axis: str, rows: Sequence[Row], base: Row) -> dict[str, list[tuple[float, float]]]:
    """case → its points (x, ratio), all other axes at the base."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        point = row["point"]
        if any(point[other] != base[other] for other in AXES if other != axis):
            continue
        x = row["steps_per_phase"] if axis == "steps" else point[axis]
        if x is not None:
            lines.setdefault(row["case"], []).append((x, row["vs_backprop"]["median"]))
    return lines


def _plot_cases(plt: Any, rows: Sequence[Row], path: str) -> None:
    figure, ax = plt.subplots(figsize=(7, 0.45 * len(rows) + 1.2))
    for i, row in enumerate(rows):
        ratio, look = row["vs_backprop"], _look(row["case"])
        ax.plot([ratio["q1"], ratio["q3"]], [i, i], color=look["color"], lw=2)
        ax.plot(ratio["median"], i, marker=look["marker"] or "o", color=look["color"], ls="")
    ax.axvline(1.0, color=INK, lw=0.8)
    ax.set_yticks(range(len(rows)), [row["case"] for row in rows])
    ax.invert_yaxis()
    ax.set(xscale="log", xlabel="time of a training step / backprop's (median, quartiles)")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    figure.tight_layout()
    save(figure, path)
    plt.close(figure)


def _look(case: str) -> Row:
    model, _, solver = case.replace(",", "").partition(" ")
    colour = {"gaussian": BLUE, "hopfield": RED}.get(model, GREY)
    dashed = {"autograd": ":", "script": ":"}.get(solver, "--" if model == "floor" else "-")
    return {
        "color": colour,
        "ls": dashed,
        "marker": _MARKS.get(solver),
        "ms": 5,
        "lw": 1.0 if model == "floor" else 1.8,
    }
