"""How compare_solvers.py shows what it measured: tables, advice, and a figure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from _common import Row, show
from _relaxing import BEYOND

from eqprop.report.figure import BLUE, GREEN, GREY, ORANGE, PINK, RED, pyplot, save

JUDGED = 1e-2  # the level by which a solver is recommended
_COLOURS = {"euler": BLUE, "euler adaptive": ORANGE, "newton": RED, "anderson": GREEN,
            "exact": PINK}  # fmt: skip
_STATES = ("fresh", "trained")


def show_network(rows: Sequence[Row]) -> None:
    """One table for all rows of a network."""
    network = rows[0]["network"]
    title = (
        f"{network['energy']}, {network['state']}: {network['activation']}, {network['cost']}, "
        f"{'-'.join(map(str, network['sizes']))}"
    )
    if network["accuracy"] is not None:
        title += f", accuracy {100 * network['accuracy']:.1f} %"

    def rose(row: Row) -> str:
        rises = row["energy_rises"]
        return "never" if rises == 0 else f"{rises} of {row['steps_taken']} steps"

    def to_level(i: int) -> Callable[[Row], str]:
        return lambda row: _cell(row["levels"][i])

    levels = [entry["level"] for entry in rows[0]["levels"]]
    columns: dict[str, Callable[[Row], str]] = {
        "phase": lambda row: row["phase"],
        "solver": lambda row: row["solver"],
        **{f"to {level:.0e}": to_level(i) for i, level in enumerate(levels)},
        "energy rose": rose,
    }
    show(title, rows, columns)


def _cell(entry: Row) -> str:
    if not entry["steps"]:
        return "–" if entry["steps"] is None else "0"
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
    for state, phase in dict.fromkeys((row["network"]["state"], row["phase"]) for row in rows):
        there = [r for r in rows if (r["network"]["state"], r["phase"]) == (state, phase)]
        best = ranking(there, level)
        text = f"{state} {phase}"
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
    for line, energy in zip(panels, energies, strict=True):
        for ax, state in zip(line, _STATES, strict=True):
            mine = [row for row in rows if row["phase"] == "free"]
            mine = [row for row in mine if row["network"]["energy"] == energy]
            _panel(ax, [row for row in mine if row["network"]["state"] == state])
            ax.tick_params(labelleft=True)
        line[0].set_ylabel("residual / the first")
        line[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    for ax in panels[-1]:
        ax.set_xlabel("wall time, ms")
    save(figure, path)
    plt.close(figure)


def _panel(ax: Any, rows: Sequence[Row]) -> None:
    network = rows[0]["network"]
    title = f"{network['energy'].capitalize()}, {network['cost'].replace('_', '-')}"
    ax.set_title(f"{title}: {network['state']}")
    levels = [entry["level"] for entry in rows[0]["levels"]]
    ax.set(xscale="log", yscale="log", ylim=(BEYOND * min(levels), 3))
    ax.set_yticks([1.0, *levels])
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.minorticks_off()
    for row in rows:
        activation = row["network"]["activation"]
        other = activation != network["activation"]
        label = f"{row['solver']}, {activation.replace('_', ' ')}" if other else row["solver"]
        colour, style = _COLOURS.get(row["solver"], GREY), "--" if other else "-"
        times = [1e3 * seconds for seconds in row["seconds"][1:]]
        ax.plot(times, row["residual"][1:], color=colour, ls=style, lw=1.6, label=label)
