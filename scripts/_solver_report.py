"""How scripts/compare_solvers.py shows what it measured: tables, advice, and a figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from _figure import BLUE, GREEN, GREY, INK, ORANGE, PINK, RED, pyplot, save
from _report import table_of
from rich.console import Console

Row = dict[str, Any]
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
    last = f"{energy}: {'; '.join(parts)} (fastest to {level:g} of the first residual, of those "
    last += "that never raised the energy)"
    if mine[0]["network"]["feedforward"]:
        last += "; a free phase needs none where it starts feed-forward"
    return last + "."


def _choice(rows: Sequence[Row], level: float) -> str:
    """use X (where, how fast), and Y (where, how fast)."""
    where: dict[str, list[str]] = {}
    for network in networks_of(rows):
        for phase in dict.fromkeys(row["phase"] for row in rows):
            there = [r for r in rows if r["network"] == network and r["phase"] == phase]
            best = ranking(there, level)
            name = best[0][0] if best else "none of them"
            text = f"{network['state']} {phase}"
            if best:
                text += f" {_ms(best[0][1])}"
            if len(best) > 1:
                text += f", {best[1][0]} {_ms(best[1][1])}"
            where.setdefault(name, []).append(text)
    return "use " + ", and ".join(f"{name} ({'; '.join(w)})" for name, w in where.items())


# ---------------------------------------------------------------------- figure


def plot(rows: Sequence[Row], path: str) -> None:
    """Residual against wall time in the free phase; a panel for each energy, fresh and trained."""
    plt = pyplot()
    energies = list(dict.fromkeys(row["network"]["energy"] for row in rows))
    figure, panels = plt.subplots(
        len(energies), 2, figsize=(10, 3.7 * len(energies)), squeeze=False,
        sharex="row", sharey=True, layout="constrained",
    )  # fmt: skip
    figure.get_layout_engine().set(wspace=0.04, hspace=0.06)
    for line, energy in zip(panels, energies, strict=True):
        for ax, state in zip(line, _STATES, strict=True):
            here = [r for r in rows if r["phase"] == "free" and r["network"]["energy"] == energy]
            _panel(ax, energy, state, [r for r in here if r["network"]["state"] == state])
        line[0].set_ylabel("residual / the first")
    for ax in panels[-1]:
        ax.set_xlabel("wall time, ms")
    save(figure, path)
    plt.close(figure)


def _panel(ax: Any, energy: str, state: str, rows: Sequence[Row]) -> None:
    network = rows[0]["network"]
    ax.set_title(f"{energy.capitalize()}, {network['cost'].replace('_', '-')}: {state}")
    levels = [entry["level"] for entry in rows[0]["levels"]]
    ax.set(xscale="log", yscale="log", ylim=(0.3 * min(levels) / 10**1.1, 4))
    ax.set_yticks([1.0, *levels])
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.minorticks_off()
    ends = []
    for row in rows:
        other = row["network"]["activation"] != network["activation"]
        times, residuals = [1e3 * s for s in row["seconds"][1:]], row["residual"][1:]
        colour = _COLOURS.get(row["solver"], GREY)
        ax.plot(times, residuals, color=colour, ls="--" if other else "-", lw=1.6)
        label = row["solver"]
        if other:
            label += f",\n{row['network']['activation']}"
        ends.append((times[-1], residuals[-1], label, colour))
    _label(ax, ends)


def _label(ax: Any, ends: list[tuple[float, float, str, str]]) -> None:
    """A name below the end of each line, the lower the more neighbours it has on its left."""
    taken: list[list[float]] = []  # of each row of labels, where the last one ended
    for x, y, text, colour in sorted(ends):
        ax.plot([x], [y], "o", color=colour, ms=4)
        at = ax.transData.transform((x, y))[0]
        half = 3.2 * max(map(len, text.split("\n"))) * ax.figure.dpi / 100
        row = next((i for i, end in enumerate(taken) if at - half > end[0]), len(taken))
        taken[row : row + 1] = [[at + half]]
        ax.annotate(text, (x, y), (0, -7 - 22 * row), textcoords="offset points", ha="center",
                    va="top", fontsize=9, linespacing=0.95, color=colour or INK,
                    arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "alpha": 0.6}
                    if row else None)  # fmt: skip
