"""The page of results, and the figure of its curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from eqprop.report.evidence import SPLITS, Evidence
from eqprop.report.figure import BLUE, GREEN, GREY, ORANGE, PINK, SKY, pyplot, save
from eqprop.report.heads import Head
from eqprop.report.results import BUSY, BY_TEST, Row, not_run, rows_of, table, whole

_COLUMNS, _WIDTH, _HEIGHT = 4, 2.8, 2.3  # of the figure's panels; inches of each
_OTHERS = (GREEN, PINK, SKY, GREY)  # colours of commands with other overrides
_TICKS = (0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50)  # per cent
_CLOSE = (
    *(i / 10 for i in range(3, 20)),
    2,
    2.2,
    2.5,
    2.7,
    3,
    3.5,
    4,
    4.5,
    *range(5, 20),
    *range(20, 91, 5),
)

INTRO = """\
# Results

Every experiment of `conf/experiment`, made by
`python scripts/results_table.py --record {record} --page {page}` from the record
[{name}]({name}); the same command with folders of runs adds these to it.

"Published" is the figure of the source that the head of the experiment's file names. No setting is
tuned on the test set: what was chosen here was chosen on training samples held back, and the heads
say what."""

NOTES = f"""\
<sub>Mean ± standard error over the seeds.
*Best epoch*: the test error of the epoch with the best validation accuracy; {BY_TEST} nothing is
held back, as published, and the test set itself has chosen the epoch.
*s an epoch*: the median, without evaluation and without the first; {BUSY} other work ran on the
machine: they do not measure speed ([speed.md](speed.md) does), and no ratio is given.
*Over backprop*: over the same command with `estimator=backprop`, on the same machine.
*(reported)*: the run folders no longer exist, so there are no seconds or curves; single dots in the
figure are what is left of them.</sub>"""


def page(
    record: Sequence[Evidence],
    heads: Mapping[str, Head],
    names: Mapping[str, str],
    figure: str | None,
) -> str:
    """The page in Markdown; ``names`` are those of the record and the page, for its first lines."""
    rows = [row for row in rows_of(record) if row.experiment in heads]
    parts = [INTRO.format(**names), "## Run"]
    if figure is not None:
        text = "Test error of the experiments epoch by epoch, beside their twins by backprop"
        parts.append(f"![{text}]({figure})")
    shown, machines = _lettered(table(rows, record, heads), record)
    parts += [shown, NOTES, machines] if rows else ["None yet.", NOTES]
    missing = not_run(rows, heads)
    if missing:
        what = (
            "From the time of a few steps. Each trains two batches in a test, and so does its twin."
        )
        parts += ["## Not run", what, "\n".join(missing)]
    return "\n\n".join(parts) + "\n"


def _lettered(lines: Sequence[str], record: Sequence[Evidence]) -> tuple[str, str]:
    """A table with a letter for each machine, whose names are long, and what the letters mean."""
    cells = [line.rpartition(" | ") for line in lines]  # the last column has the machines
    of = {entry.machine for entry in record}
    names = sorted(name for name in of if any(name in last for *_, last in cells))
    letters = dict(zip(names, ascii_uppercase, strict=False))
    shown = []
    for first, bar, last in cells:
        for name in sorted(letters, key=len, reverse=True):  # one may begin as another does
            last = last.replace(name, letters[name])
        shown.append(first + bar + last)
    told = "; ".join(f"{letter}: {name}" for name, letter in letters.items())
    return "\n".join(shown), f"<sub>*Machines*: {told}.</sub>"


def curve(row: Row) -> tuple[str, list[int], list[float]]:
    """Split, epochs, and errors there in per cent: the mean over the runs that measured most often.

    The split is test, unless validation was measured more often.
    """
    found = [
        (split, {i: a for i, a in enumerate(run.accuracy.get(split, []), 1) if a is not None})
        for split in SPLITS
        for run in row.runs
    ]
    most = max(len(known) for _, known in found)
    split = next(split for split, known in found if len(known) == most)
    runs = [known for of, known in found if of == split and len(known) == most]
    epochs = sorted(set.intersection(*map(set, runs)))
    return split, epochs, [100 - 100 * sum(k[i] for k in runs) / len(runs) for i in epochs]


def panels(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Experiment → its rows of one split; none where no row has a curve."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.experiment is not None:
            found.setdefault(row.experiment, []).append(row)
    shown = {
        name: [row for row in of if _split(row) == _split(of[0])] for name, of in found.items()
    }
    return {name: of for name, of in shown.items() if any(len(curve(row)[1]) > 1 for row in of)}


def _split(row: Row) -> str:
    return curve(row)[0]


def draw(record: Sequence[Evidence], heads: Mapping[str, Head], path: str) -> bool:
    """A small panel for each experiment with curves; whether there was any to draw."""
    found = panels([row for row in rows_of(record) if row.experiment in heads])
    if not found:
        return False
    plt = pyplot()
    columns = min(_COLUMNS, len(found))
    lines = math.ceil(len(found) / columns)
    size = _WIDTH * columns, _HEIGHT * lines + 0.5
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
    looks: dict[str, Any] = {}
    for axis, (name, rows) in zip(axes.flat, found.items(), strict=False):
        others = iter(_OTHERS)
        for row in rows:
            kind = "backprop" if row.is_twin else "ours"
            plain = len(whole(row.command)) == 1 + row.is_twin
            colour = {"ours": BLUE, "backprop": ORANGE}[kind] if plain else next(others, GREY)
            _, x, y = curve(row)
            look = "o" if len(x) < row.reached else "o-" if len(x) < 15 else "-"
            (made,) = axis.plot(x, y, look, ms=3, lw=1.4, color=colour)
            if plain:
                looks[kind] = max(
                    looks.get(kind, made), made, key=lambda line: line.get_ls() == "-"
                )
            else:
                made.set_label(" ".join(row.command[1:]))
        error = heads[name].published_error
        if error is not None:
            looks["published"] = axis.axhline(error, color=GREY, ls="--", lw=1)
        split = _split(rows[0])
        axis.set_title(name if split == "test" else f"{name} ({split})", fontsize=9, pad=4)
        axis.set_xlim(left=0)
        _scale(axis)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=6)
    for axis in list(axes.flat)[len(found) :]:
        axis.remove()
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel("test error, %", fontsize=9)
    order = [kind for kind in ("ours", "backprop", "published") if kind in looks]
    shown = [looks[kind] for kind in order]
    figure.legend(shown, order, loc="outside upper left", ncols=3, fontsize=9)
    save(figure, path)
    plt.close(figure)
    return True


def _scale(axis: Any) -> None:
    """A logarithmic axis with plain numbers, and whole epochs."""
    from matplotlib.ticker import NullLocator

    low, high = axis.get_ylim()
    if low <= 0:  # somebody has reached 0 %
        return
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    if len(ticks) < 3:
        ticks = [tick for tick in _CLOSE if low <= tick <= high]
        ticks = ticks[:: max(1, len(ticks) // 4)]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.yaxis.set_minor_locator(NullLocator())
    axis.tick_params(labelsize=8)
    axis.xaxis.get_major_locator().set_params(integer=True)
