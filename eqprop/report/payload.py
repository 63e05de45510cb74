"""All that a page shows, as plain data: what the script on the page draws, and nothing else."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from eqprop.report import curves
from eqprop.report.evaluation import evaluation_of
from eqprop.report.points import SEED, Point, differing, is_parameter, points_of
from eqprop.report.reading import Run
from eqprop.report.tolerant import number, plain, readable, text_of

_DETAILED = 40  # runs of a sweep whose relaxations and mistakes are on the page: the best ones
_COLUMNS = 12  # settings that are shown at first
_SHOWN = ("accuracy/test", "accuracy/validation", "accuracy/train")

Column = dict[str, Any]


def payload(
    folder: Path, runs: Sequence[Run], problems: Sequence[str], page: Path
) -> dict[str, Any]:
    """The data of ``page`` on ``runs``, which were found in ``folder``."""
    names = curves.names_of(runs)
    axes = curves.axes_of(runs, drawn := curves.drawn(runs, names))
    points = points_of(runs)
    columns = _columns(runs, names)
    detailed = best_first(runs)[:_DETAILED]
    return {
        "title": readable(folder.resolve().name) or readable(str(folder.resolve())),
        "folder": readable(str(folder.resolve())),
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "columns": [{k: v for k, v in column.items() if k != "of"} for column in columns],
        "runs": [
            {
                "name": name_of(run, folder),
                "link": link(run.folder, page.parent) if run.folder.is_dir() else None,
                "state": run.state,
                "failure": run.failure,
                "overrides": own,
                "problems": [text_of(problem) for problem in run.problems],
                "cells": [_cell(column["of"](run)) for column in columns],
            }
            for run, own in zip(runs, own_overrides(runs), strict=True)
        ],
        "curves": {
            "axes": axes,
            "of": curves.packed(runs, axes),
            "leftOut": [name for name in names if name not in drawn],
        },
        "points": [_point(point) for point in points],
        "parameters": list(dict.fromkeys(key for point in points for key in point.settings)),
        "shared": _shared(runs),
        "details": [detail for i in detailed if (detail := _detail(i, runs[i]))],
        "problems": [text_of(problem) for problem in problems],
        "facts": _facts(runs[0]) if len(runs) == 1 else [],
    }


def link(folder: Path, start: Path) -> str:
    """A relative address that leads from ``start`` to ``folder``, whatever it is called."""
    return quote(os.fsencode(os.path.relpath(folder.resolve(), start.resolve()))) + "/"


def name_of(run: Run, top: Path) -> str:
    """The run's path below ``top``, or its folder's name."""
    relative = os.path.relpath(run.folder, top)
    return readable(relative if relative != "." else run.folder.resolve().name)


def own_overrides(runs: Sequence[Run]) -> list[str]:
    """Of each run, the overrides that not all runs have."""
    # of a job that never began only what varies is recorded
    with_some = [set(run.overrides) for run in runs if run.overrides and run.composed]
    common = set.intersection(*with_some) if len(with_some) > 1 else set()
    return [" ".join(word for word in run.overrides if word not in common) for run in runs]


def _columns(runs: Sequence[Run], names: Sequence[str]) -> list[Column]:
    """The columns of the table of runs; ``of`` makes a cell."""

    def add(key: str, group: str, shown: bool, of: Any) -> None:
        found.append({"key": key, "group": group, "shown": shown, "of": of})

    found: list[Column] = []
    add("state", "run", True, lambda run: run.state)
    add("objective", "result", True, lambda run: run.objective)
    keys = differing([run.config for run in runs if run.composed] or [run.config for run in runs])
    keys.sort(key=lambda key: (not is_parameter(key), key != SEED))  # stable: else as configured
    first = [key for key in keys if is_parameter(key) or key == SEED][:_COLUMNS]
    for key in keys:
        add(key, "setting", key in first, lambda run, key=key: run.config.get(key, _MISSING))
    known = [name for name in _SHOWN if name in names]
    for name in known:
        add(name, "result", True, lambda run, name=name: run.last.get(name, _MISSING))
    add("epochs", "result", True, lambda run: run.epochs)
    add("seconds", "result", True, lambda run: run.seconds)
    add("reason", "run", any(run.failure for run in runs), lambda run: run.failure)
    for name in known:
        add(f"best {name}", "result", False, lambda run, name=name: run.best(name))
    for name in [name for name in names if name not in known]:
        add(name, "result", False, lambda run, name=name: run.last.get(name, _MISSING))
    return found


_MISSING = object()


def _cell(value: Any) -> Any:
    """A number, a text, a truth value; null where there is nothing, "null" where it says so."""
    if value is _MISSING:
        return None
    if isinstance(value, float) and math.isfinite(value):
        return curves.significant(value, 9)
    return plain(value)


def best_first(runs: Sequence[Run]) -> list[int]:
    """The numbers of the runs by objective, the greatest first; those without one come last."""

    def order(i: int) -> tuple[bool, float]:
        objective = runs[i].objective
        return objective is None, -(objective or 0.0)

    return sorted(range(len(runs)), key=order)


def _detail(i: int, run: Run) -> dict[str, Any] | None:
    """How a run's phases relaxed and what it mistook, if its folder tells."""
    relaxed, evaluated = curves.relaxations(run), evaluation_of(run.evaluation)
    known = relaxed or evaluated
    return {"run": i, "relaxations": relaxed, "evaluation": evaluated} if known else None


def _point(point: Point) -> dict[str, Any]:
    settings = {key: _cell(value) for key, value in point.settings.items()}
    mean, error = (curves.significant(value, 9) for value in (point.mean, point.error))
    return {"settings": settings, "runs": point.runs, "mean": mean, "error": error, "n": point.n}


def _shared(runs: Sequence[Run]) -> list[list[Any]]:
    """The settings that are the same in all runs."""
    configs = [run.config for run in runs if run.composed]
    if not configs:
        return []
    differ = set(differing(configs))
    return [[key, _cell(value)] for key, value in configs[0].items() if key not in differ]


def _facts(run: Run) -> list[list[Any]]:
    """What a page of one run says at its top."""
    command = run.environment.get("command")
    versions, git = run.environment.get("versions"), run.environment.get("git")
    found = {
        "command": " ".join(map(text_of, command)) if isinstance(command, list) else None,
        "started": run.status.get("start"),
        "ended": run.status.get("end"),
        "seconds": run.seconds,
        "host": run.status.get("host"),
        "torch": versions.get("torch") if isinstance(versions, dict) else None,
        "commit": git.get("commit") if isinstance(git, dict) else None,
        "exit code": number(run.status.get("exit_code")),
    }
    return [[key, _cell(value)] for key, value in found.items() if value is not None]
