"""The runs below a folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from eqprop.run.errors import UserError
from eqprop.run.reading import Run, is_run, read_run
from eqprop.run.text import one_line

_NO_RUNS_IN = {"checkpoints", ".hydra", "wandb", ".git", "__pycache__"}


def find_runs(folder: Path) -> tuple[list[Run], list[str]]:
    """Every run in ``folder`` or anywhere below it, by path, and what could not be read.

    Raises:
        UserError: if there is no such folder, or no run in it.
    """
    name = one_line(folder)
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise UserError(f"{name} {what}; name a run's or a sweep's folder")
    problems: list[str] = []
    runs = [read_run(path) for path in _walk(folder, problems)]
    if not runs:
        raise UserError(
            f"{name} holds no run, nor does any folder below it (no status.json, metrics.jsonl or "
            f".hydra){''.join(f'; {problem}' for problem in problems[:1])}"
        )
    return sorted(runs, key=lambda run: natural(run.folder)), problems


def natural(folder: Path) -> list[tuple[int, str]]:
    """A sort key by which 10-x comes after 9-x."""
    counts = [re.match(r"[0-9]{1,9}(?=-)", part) for part in folder.parts]
    return [(int(c[0]) if c else 10**9, part) for c, part in zip(counts, folder.parts, strict=True)]


def _walk(top: Path, problems: list[str]) -> list[Path]:
    """Folders of runs; links are followed, each folder is visited once."""
    runs = []
    seen: set[str] = set()

    def note(error: OSError) -> None:
        where = os.path.relpath(os.fsdecode(error.filename or top), top)
        problems.append(f"{one_line(where)}: {error.strerror or error}")

    for path, names, files in os.walk(top, onerror=note, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        if is_run({*names, *files}):
            runs.append(Path(path))
        names[:] = sorted(name for name in names if name not in _NO_RUNS_IN)
    return runs
