"""How scripts/compare_solvers.py shows what it measured: tables, advice, and a figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from _figure import BLUE, GREEN, GREY, ORANGE, PINK, RED, pyplot, save
from _relaxing import BEYOND
from _report import table_of
from rich.console import Console

Row = dict[str, Any]
End = tuple[float, float, str, str]  # x, y, label, colour
JUDGED = 1e-2  # the level by which a solver is recommended
_COLOURS = {"euler": BLUE, "euler adaptive": ORANGE, "newton": RED, "anderson": GREEN,
            "exact": PINK}  # fmt: skip
_STATES = ("fresh", "trained")


def networks_of(rows: Iterable[Row]) -> list[Row]:
    """The networks that rows belong to, in their order."""
    found: list[Row] = []
    for row in rows:
        if row["network"] not in found:
            found.append(row["network"])
    return found


def show(console: Console, rows: Sequence[Row]) -> None:
    """One table for all rows of a network."""
    network = rows[0]["network"]
    title = (
        f"{network['energy']}, {network['state']}: {network['activation']}, {network['cost']}, "
        f"{'-'.join(map(str, network['sizes']))}"
    )
    if network["accuracy"] is not None:
        title += f", accuracy {100 * network['accuracy']:.1f} %"
    levels = [f"to {entry['level']:.0e}" for entry in rows[0]["levels"]]
    table = table_of(title, ["phase", "solver", *levels, "energy rose"])
    for row in rows:
        rises = row["energy_rises"]
        rose = "never" if rises == 0 else f"{rises} of {row['steps_taken']} steps"
        table.add_row(row["phase"], row["solver"], *map(_cell, row["levels"]), rose)
    console.print(table)


def _cell(entry: Row) -> str:
    if entry["steps"] is None:
        return "–"
    if entry["steps"] == 0:
        return "0"
    return f"{entry['steps']} in {_ms(entry)}"


def _ms(entry: Row) -> str:
    return f"{1e3 * entry['median_s']:.3g} ms"


# ---------------------------------------------------------------------- advice


def ranking(rows: Iterable[Row], level: float) -> list[tuple[str, Row]]:
    """Solvers that reach the level and never raised the energy, the fastest first."""
    entries = (
        (row["solver"], next(e for e in row["levels"] if e["level"] == level))
        for row in rows
        if row["energy_rises"] == 0
    )
    reached = ((name, entry) for name, entry in entries if entry["steps"])
    return sorted(reached, key=lambda pair: pair[1]["median_s"])


def advice(energy: str, rows: Sequence[Row]) -> str:
    """One sentence: which solver to use when, by the level ``JUDGED`` or the nearest there is."""
    mine = [row for row in rows if row["network"]["energy"] == energy]
    level = min((e["level"] for e in mine[0]["levels"]), key=lambda x: abs(x - JUDGED))
    parts = []
    for activation in dict.fromkeys(row["network"]["activation"] for row in mine):
        same = [row for row in mine if row["network"]["activation"] == activation]
        parts.append(f"with {activation} {_choice(same, level)}")
    if mine[0]["network"]["feedforward"]:
        parts.append("a free phase that starts feed-forward needs none")
    reason = f"fastest to {level:g} of the first residual of those that never raised the energy"
    return f"{energy}: {'; '.join(parts)} ({reason})."


def _choice(rows: Sequence[Row], level: float) -> str:
    """use X (where, how fast), and Y (where, how fast)."""
    where: dict[str, list[str]] = {}
    for network in networks_of(rows):
        for phase in dict.fromkeys(row["phase"] for row in rows):
            there = [r for r in rows if r["network"] == network and r["phase"] == phase]
            best = ranking(there, level)
            text = f"{network['state']} {phase}"
            if best:
                text += f": {', '.join(f'{_ms(e)} {n}' for n, e in best[:2])}"
            where.setdefault(best[0][0] if best else "none of them", []).append(text)
    return "use " + " and ".join(f"{name} [{'; '.join(w)}]" for name, w in where.items())


# ---------------------------------------------------------------------- figure


def plot(rows: Sequence[Row], path: str) -> None:
    """Residual against wall time in the free phase; a panel for each energy, fresh and trained."""
    plt = pyplot()
    energies = list(dict.fromkeys(row["network"]["energy"] for row in rows))
    figure, panels = plt.subplots(
        len(energies), 2, figsize=(11, 3.7 * len(energies)), squeeze=False,
        sharex="row", sharey=True, layout="constrained",
    )  # fmt: skip
    figure.get_layout_engine().set(wspace=0.04, hspace=0.06)
    free, ends = [row for row in rows if row["phase"] == "free"], {}
    for line, energy in zip(panels, energies, strict=True):
        mine = [row for row in free if row["network"]["energy"] == energy]
        for ax, state in zip(line, _STATES, strict=True):
            ends[ax] = _panel(ax, [row for row in mine if row["network"]["state"] == state])
            ax.tick_params(labelleft=True)
        line[0].set_ylabel("residual / the first")
    for ax in panels[-1]:
        ax.set_xlabel("wall time, ms")
    figure.draw_without_rendering()  # the axes are where they will be
    figure.set_layout_engine("none")
    for ax, found in ends.items():
        _label(ax, found)
    save(figure, path)
    plt.close(figure)


def _panel(ax: Any, rows: Sequence[Row]) -> list[End]:
    """Draw the lines; returns their ends."""
    network = rows[0]["network"]
    title = f"{network['energy'].capitalize()}, {network['cost'].replace('_', '-')}"
    ax.set_title(f"{title}: {network['state']}")
    levels = [entry["level"] for entry in rows[0]["levels"]]
    bottom = BEYOND * min(levels)
    ax.set(xscale="log", yscale="log", ylim=(bottom / 40, 3))
    ax.set_yticks([1.0, *levels])
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.minorticks_off()
    ends = []
    for row in rows:
        other = row["network"]["activation"] != network["activation"]
        times, residuals = _until(row, bottom)
        colour = _COLOURS.get(row["solver"], GREY)
        ax.plot(times, residuals, color=colour, ls="--" if other else "-", lw=1.6)
        label = row["solver"].replace(" ", "\n")
        if other:
            label += f",\n{row['network']['activation'].replace('_', ' ')}"
        ends.append((times[-1], residuals[-1], label, colour))
    return ends


def _until(row: Row, bottom: float) -> tuple[list[float], list[float]]:
    """Milliseconds and residuals from the first step to where the line leaves the picture."""
    times, logs = [1e3 * s for s in row["seconds"][1:]], np.log(row["residual"][1:])
    end = next((i for i, value in enumerate(logs) if value <= np.log(bottom)), len(logs) - 1)
    times, logs = times[: end + 1], logs[: end + 1]
    if end > 0 and logs[-1] < np.log(bottom):
        part = (np.log(bottom) - logs[-2]) / (logs[-1] - logs[-2])
        times[-1], logs[-1] = times[-2] + part * (times[-1] - times[-2]), np.log(bottom)
    return times, list(np.exp(np.maximum(logs, np.log(bottom))))


def _label(ax: Any, ends: list[End]) -> None:
    """A name below the end of each line, side by side."""
    from matplotlib.text import Text

    placed = []
    for x, y, text, colour in sorted(ends):
        ax.plot([x], [y], "o", color=colour, ms=4)
        note = ax.annotate(
            text, (x, y), (0, 0), textcoords="axes fraction", ha="center", va="top",
            fontsize=9, linespacing=0.95, color=colour,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "relpos": (0.5, 1)},
        )  # fmt: skip
        placed.append((note, ax.transData.transform((x, y))[0]))
    box = ax.get_window_extent()
    widths = [Text.get_window_extent(note).width + 8 for note, _ in placed]  # without the arrow
    for (note, _), at in zip(placed, _beside([x for _, x in placed], widths, box), strict=True):
        note.set_position(((at - box.x0) / box.width, 0.15))


def _beside(wished: list[float], widths: list[float], box: Any) -> list[float]:
    """Centres as near as can be to those wished for, ascending, so that nothing overlaps."""
    at = list(wished)
    for i, width in enumerate(widths):
        low = at[i - 1] + (widths[i - 1] + width) / 2 if i else box.x0 + width / 2
        at[i] = max(at[i], low)
    for i in reversed(range(len(at))):
        last = i == len(at) - 1
        high = box.x1 - widths[i] / 2 if last else at[i + 1] - (widths[i] + widths[i + 1]) / 2
        at[i] = min(at[i], high)
    return at
