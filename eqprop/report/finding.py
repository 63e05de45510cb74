"""The runs below a folder, and what the sweeps among them recorded of their jobs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from eqprop.report import tolerant
from eqprop.report.reading import Run, is_run, read_run, settings, words_of
from eqprop.report.tolerant import number, text_of, told
from eqprop.run.errors import UserError
from eqprop.sweep.marks import is_running

RESULTS = "results.jsonl"
_NO_RUNS_IN = {"checkpoints", ".hydra", "wandb", ".git", "__pycache__"}


def find_runs(folder: Path) -> tuple[list[Run], list[str]]:
    """Every run in ``folder`` or anywhere below it, by path, and what could not be read.

    Raises:
        UserError: if there is no such folder, or no run in it.
    """
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise UserError(
            f"{tolerant.readable(str(folder))} {what}; name a run's or a sweep's folder"
        )
    problems: list[str] = []
    folders, sweeps = _walk(folder, problems)
    runs = {os.path.realpath(path): read_run(path) for path in folders}
    for sweep in sweeps:
        _add_results(sweep, runs, problems)
    if not runs:
        raise UserError(
            f"{tolerant.readable(str(folder))} holds no run, nor does any folder below it "
            f"(no status.json, metrics.jsonl or .hydra){''.join(f'; {p}' for p in problems[:1])}"
        )
    return sorted(runs.values(), key=lambda run: natural(run.folder)), problems


def natural(folder: Path) -> list[Any]:
    """A sort key by which 10-x comes after 9-x."""
    key: list[Any] = []
    for part in folder.parts:
        head = part.partition("-")[0]
        is_count = head.isascii() and head.isdigit() and len(head) < 10
        key.append((0, int(head), part) if is_count else (1, 0, part))
    return key


def _walk(top: Path, problems: list[str]) -> tuple[list[Path], list[Path]]:
    """Folders of runs and of sweeps; links are followed, each folder is visited once."""
    runs, sweeps = [], []
    seen: set[str] = set()

    def note(error: OSError) -> None:
        name = tolerant.readable(os.path.relpath(os.fsdecode(error.filename or top), top))
        problems.append(f"{name}: {error.strerror or error}")

    for path, names, files in os.walk(top, onerror=note, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        if RESULTS in files:
            sweeps.append(Path(path))
        if is_run({*names, *files} - ({".hydra"} if RESULTS in files else set())):
            runs.append(Path(path))
        names[:] = sorted(name for name in names if name not in _NO_RUNS_IN)
    return runs, sweeps


def _add_results(sweep: Path, runs: dict[str, Run], problems: list[str]) -> None:
    """What the sweeper saw of its jobs: more than a job that died can have recorded itself."""
    latest: dict[str, dict[str, Any]] = {}
    for line in tolerant.read_lines(sweep / RESULTS, problems):
        folder = line.get("folder")
        if isinstance(folder, str) and folder and "\0" not in folder:
            latest[folder] = line
    for folder, line in latest.items():
        path = sweep / folder
        if not path.is_dir() and (sweep / Path(folder).name).is_dir():
            path = sweep / Path(folder).name  # the sweep was moved
        run = runs.get(os.path.realpath(path))
        if run is None:
            run = runs[os.path.realpath(path)] = Run(path)
            run.overrides = words_of(line.get("overrides"))
            run.config = settings(run.overrides)
        _judge(run, line)


def _judge(run: Run, line: dict[str, Any]) -> None:
    """Take the sweeper's word where the run's own record does not say more."""
    state, reason = line.get("state"), line.get("reason")
    if run.state == "running" or not isinstance(state, str) or not state:
        return
    why = told(reason) if isinstance(reason, str) and reason else None
    if state == "running":  # so it was when the sweeper last looked
        if run.state == "unknown":
            lives = is_running(run.folder)
            run.state = "running" if lives else "killed"
            run.reason = None if lives else "its process is gone and recorded nothing"
    elif state == "done":
        if run.state == "unknown":
            run.state, run.reason, run.objective = "done", None, number(line.get("objective"))
    elif run.state == "killed":
        run.reason = why or run.reason
    elif run.state != "failed" or run.reason is None:
        run.state, run.reason = text_of(state), why or run.reason
        run.objective = run.objective if run.state == "pruned" else None
