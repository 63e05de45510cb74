"""What differs between runs, side by side: their configuration and their results."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from eqprop.report.charts import MISSING
from eqprop.report.curves import names_of
from eqprop.report.runs import differing, find_runs
from eqprop.run.errors import UserError
from eqprop.run.reading import Run
from eqprop.run.text import number, one_line, yaml_word

_WIDEST = 40  # the most that a cell takes of a terminal before it is wrapped

Row = tuple[str, list[str]]


def read(folders: Sequence[Path]) -> list[Run]:
    """The runs in these folders; UserError if there are fewer than two, or one is no run's."""
    if len(folders) < 2:
        raise UserError("a comparison takes two runs or more: name their folders")
    runs = []
    for folder in folders:
        first = find_runs(folder)[0]
        if first.folder != folder:
            below = one_line(first.folder)
            raise UserError(f"{one_line(folder)} is no run's folder; one below it is {below}")
        runs.append(first)
    return runs


def compare(runs: Sequence[Run], everything: bool) -> list[Row]:
    """What differs, or everything: configuration, then results; key → a text for each run."""
    found: list[Row] = []
    for tables in ([run.config for run in runs], _results(runs)):
        every = dict.fromkeys(key for table in tables for key in table)
        keys = every if everything else differing(tables)
        found += [(key, [_cell(table.get(key, MISSING)) for table in tables]) for key in keys]
    return found


def _results(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """How the runs ended, then the best and last values of their metrics, accuracy first."""
    names = names_of(runs)
    tables = []
    for run in runs:
        found: dict[str, Any] = {"state": run.state, "reason": run.failure}
        found |= {"objective": run.objective, "epochs": run.epochs, "seconds": run.seconds}
        found |= {f"best {n}": run.best(n) for n in names if n.startswith("accuracy/")}
        found |= {f"last {n}": run.last.get(n) for n in names}
        tables.append({key: MISSING if value is None else value for key, value in found.items()})
    return tables


def _cell(value: Any) -> str:
    return f"{value:.6g}" if number(value) is not None else yaml_word(value)


def heads_of(folders: Sequence[Path]) -> list[str]:
    """The ends of the folders' paths in which they differ."""
    paths = [folder.resolve() for folder in folders]
    shared = os.path.commonpath([path.parent for path in paths])
    return [one_line(path.relative_to(shared)) for path in paths]


def lines_of(heads: Sequence[str], rows: Sequence[Row], width: int | None) -> Iterator[str]:
    """An aligned table, as wide as it has to be, or in parts that fit into ``width``."""
    widest = max(
        cell_len(text) for texts in (heads, *(texts for _, texts in rows)) for text in texts
    )
    room = (width or sys.maxsize) - max(cell_len(key) for key, _ in rows)
    at_once = max(room // (min(widest, _WIDEST) + 2), 1)
    console = Console(width=width or 10**6, markup=False, highlight=False, emoji=False)
    for start in range(0, len(heads), at_once):
        some = slice(start, start + at_once)
        table = Table("", *heads[some], box=None, pad_edge=False, header_style="")
        for key, texts in rows:
            table.add_row(key, *texts[some])
        with console.capture() as shown:
            console.print(table)
        yield from map(str.rstrip, shown.get().splitlines())
