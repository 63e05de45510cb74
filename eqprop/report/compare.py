"""What differs between runs, side by side: their configuration and their results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.cells import cell_len, set_cell_size

from eqprop.report.curves import names_of
from eqprop.report.finding import find_runs
from eqprop.report.points import differing
from eqprop.run.errors import UserError
from eqprop.run.reading import Run
from eqprop.run.text import number, one_line, yaml_word

MISSING = "–"
_GAP, _WIDEST = "  ", 40  # between columns; the most that a cell takes of a terminal

Row = tuple[str, list[str]]


def read(folders: Sequence[Path]) -> list[Run]:
    """The runs in these folders.

    Raises:
        UserError: if there are fewer than two, or one is no run's folder.
    """
    if len(folders) < 2:
        raise UserError("a comparison takes two runs or more: name their folders")
    return [_read_one(folder) for folder in folders]


def _read_one(folder: Path) -> Run:
    found, _ = find_runs(folder)
    for run in found:
        if run.folder == folder:
            return run
    name, first = one_line(folder), one_line(found[0].folder)
    raise UserError(f"{name} is no run's folder; the first of {len(found)} below it is {first}")


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
    """The shortest ends of the folders' paths that tell them apart."""
    paths = [folder.resolve() for folder in folders]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = [one_line(Path(*path.parts[-depth:])) for path in paths]
        if len(set(names)) == len(set(paths)):
            break
    return names


def lines_of(heads: Sequence[str], rows: Sequence[Row], width: int | None) -> Iterator[str]:
    """An aligned table, as wide as it has to be, or cut into parts that fit into ``width``."""
    cells = [["", *heads], *([key, *texts] for key, texts in rows)]
    widths = [max(cell_len(row[i]) for row in cells) for i in range(len(heads) + 1)]
    parts = [list(range(1, len(widths)))]
    if width is not None:
        room = max(width - widths[0], len(_GAP) + 1)
        widths[1:] = [min(most, _WIDEST, room - len(_GAP)) for most in widths[1:]]
        parts = blocks([most + len(_GAP) for most in widths], room)
    for part in parts:
        for row in cells:
            texts = [set_cell_size(clip(row[i], widths[i]), widths[i]) for i in [0, *part]]
            yield _GAP.join(texts).rstrip()[:width]


def blocks(widths: Sequence[int], room: int) -> list[list[int]]:
    """The columns but the first, in groups that fit into ``room``."""
    found: list[list[int]] = [[]]
    for i in range(1, len(widths)):
        if found[-1] and sum(widths[j] for j in found[-1]) + widths[i] > room:
            found.append([])
        found[-1].append(i)
    return found


def clip(text: str, width: int) -> str:
    """A text short enough to stand beside others: a sentence's beginning, a name's end."""
    if cell_len(text) <= width:
        return text
    return f"{text[: width - 1]}…" if " " in text else f"…{text[len(text) - width + 1 :]}"
