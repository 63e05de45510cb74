"""What differs between runs, side by side: their configuration keys and their results.

    python scripts/compare.py outputs/2026-01-31/12-00-00-a outputs/2026-01-31/12-05-00-b
    python scripts/compare.py outputs/multirun/2026-01-31/12-00-00/* | less -S

A key that a run does not have is shown as –. On a terminal runs with long names are called A, B, …;
where the table is wider than the terminal, it goes on below.
"""

from __future__ import annotations

import argparse
import os
import string
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _timing import exit_cleanly
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table

from eqprop.report.curves import names_of
from eqprop.report.finding import find_runs
from eqprop.report.points import differing
from eqprop.report.reading import Run, is_run, read_run
from eqprop.report.tolerant import readable
from eqprop.run.errors import UserError
from eqprop.run.quiet import QuietConsole
from eqprop.run.streams import flush

MISSING = "–"
_GAP, _WIDEST = 2, 40  # blanks between columns; letters of a cell on a terminal


@dataclass(frozen=True)
class Part:
    """Rows of the comparison that belong together: key → a text for each run."""

    title: str
    rows: dict[str, list[str]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder; two or more of them")
    add("--all", action="store_true", help="also what is the same in all of them")
    return parser.parse_args()


def read(folders: Sequence[Path]) -> list[Run]:
    """The runs in these folders.

    Raises:
        UserError: if there are fewer than two, or one is no run's folder.
    """
    if len(folders) < 2:
        raise UserError("a comparison takes two runs or more: name their folders")
    return [_read_one(folder) for folder in folders]


def _read_one(folder: Path) -> Run:
    name = readable(str(folder))
    if not folder.is_dir():
        raise UserError(f"{name} {'is no folder' if folder.exists() else 'does not exist'}")
    try:
        names = set(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{name}: {error.strerror or error}") from error
    if is_run(names):
        return read_run(folder)
    try:
        below, _ = find_runs(folder)
    except UserError:
        why = "no status.json, metrics.jsonl or .hydra in it"
        raise UserError(f"{name} is no run's folder ({why})") from None
    first = readable(str(below[0].folder))
    raise UserError(
        f"{name} is no run's folder; there are {len(below)} below it, the first is {first}"
    )


def parts_of(runs: Sequence[Run], everything: bool) -> list[Part]:
    """Configuration and results, in the order of the configuration."""
    return [
        Part("configuration", _rows([run.config for run in runs], everything)),
        Part("results", _rows(_results(runs), everything)),
    ]


def _rows(tables: Sequence[dict[str, Any]], everything: bool) -> dict[str, list[str]]:
    every = dict.fromkeys(key for table in tables for key in table)
    keys = list(every) if everything else differing(tables)
    return {
        key: [shown(table[key]) if key in table else MISSING for table in tables] for key in keys
    }


def _results(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """How the runs ended, then the best and last values of their metrics, accuracy first."""
    names = names_of(runs)
    accuracies = [name for name in names if name.startswith("accuracy/")]
    tables = []
    for run in runs:
        found: dict[str, Any] = {"state": run.state, "reason": run.failure}
        found |= {"objective": run.objective, "epochs": run.epochs, "seconds": run.seconds}
        found |= {f"best {name}": run.best(name) for name in accuracies}
        found |= {f"last {name}": run.last.get(name) for name in names}
        tables.append({k: MISSING if value is None else value for k, value in found.items()})
    return tables


def shown(value: Any) -> str:
    """A value as YAML writes it, a number with six digits."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def heads_of(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the folders' paths that tell them apart."""
    paths = [folder.resolve() for folder in folders]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = [str(Path(*path.parts[-depth:])) for path in paths]
        if len(set(names)) == len(set(paths)):
            return [readable(name) for name in names]
    return [readable(str(path)) for path in paths]


def print_plain(heads: Sequence[str], parts: Sequence[Part]) -> None:
    """One aligned table without lines, as wide as it has to be."""
    rows = [["", *heads]]
    for part in parts:
        rows += [[key, *cells] for key, cells in part.rows.items()]
    widths = [max(cell_len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        padded = (
            cell + " " * (width + _GAP - cell_len(cell))
            for cell, width in zip(row, widths, strict=True)
        )
        sys.stdout.write("".join(padded).rstrip() + "\n")


def print_rich(console: QuietConsole, heads: Sequence[str], parts: Sequence[Part]) -> None:
    """Tables that fit the terminal: as many runs side by side as there is room for."""
    cells = [[clip(cell) for cell in row] for part in parts for row in part.rows.values()]
    widths = [max((cell_len(row[i]) for row in cells), default=0) for i in range(len(heads))]
    keys = max(cell_len(key) for part in parts for key in part.rows) + 3
    room = max(console.width - keys, 1)
    if sum(max(w, cell_len(h)) + 3 for w, h in zip(widths, heads, strict=True)) > room:
        letters = [letter_of(i) for i in range(len(heads))]
        for letter, head in zip(letters, heads, strict=True):
            console.print(f"{letter}  {head}", overflow="fold")
        heads = letters
    widths = [max(w, cell_len(h)) + 3 for w, h in zip(widths, heads, strict=True)]
    for columns in blocks(widths, room):
        console.print(_table(heads, parts, columns))


def blocks(widths: Sequence[int], room: int) -> list[list[int]]:
    """The columns in groups that fit into ``room``; one that is too wide stands alone."""
    found: list[list[int]] = [[]]
    for i, width in enumerate(widths):
        if found[-1] and sum(widths[j] for j in found[-1]) + width > room:
            found.append([])
        found[-1].append(i)
    return found


def _table(heads: Sequence[str], parts: Sequence[Part], columns: Sequence[int]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for i in columns:
        table.add_column(heads[i], justify="right", overflow="fold")
    for part in parts:
        for key, cells in part.rows.items():
            table.add_row(key, *(clip(cells[i]) for i in columns))
        table.add_section()
    return table


def clip(text: str) -> str:
    """A cell short enough to stand beside others: a sentence's beginning, a name's end."""
    if len(text) <= _WIDEST:
        return text
    return f"{text[: _WIDEST - 1]}…" if " " in text else f"…{text[1 - _WIDEST :]}"


def letter_of(i: int) -> str:
    """A, B, … Z, AA, AB, …"""
    letters = string.ascii_uppercase
    return letters[i] if i < 26 else letter_of(i // 26 - 1) + letters[i % 26]


def main() -> None:
    args = arguments()
    runs = read(args.runs)
    parts = [part for part in parts_of(runs, args.all) if part.rows]
    heads = heads_of(args.runs)
    console = QuietConsole(highlight=False, markup=False, emoji=False)
    try:
        if not parts:
            sys.stdout.write("nothing differs: configurations and results are the same\n")
        elif console.is_terminal:
            print_rich(console, heads, parts)
        else:
            print_plain(heads, parts)
    except BrokenPipeError:
        pass
    flush()


if __name__ == "__main__":
    exit_cleanly(main)
