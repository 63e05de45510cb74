"""The runs below a folder, which of their settings differ, and repeats of one point together."""

from __future__ import annotations

import math
import os
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from eqprop.run.errors import UserError
from eqprop.run.reading import Run, is_run, read_run
from eqprop.run.text import one_line

_ASIDE = {"name", "resume", "rerun", "tracking", "paths", "sweep", "checkpoint", "hydra", "seed"}
_ASIDE |= {"trainer.progress", "trainer.summary", "device.threads"}
_NO_RUNS_IN = {"checkpoints", ".hydra", "wandb", ".git", "__pycache__"}


@dataclass
class Point:
    """Runs, by their numbers, whose configurations differ only in the seed.

    ``mean`` is of the ``n`` objectives of those that are done, ``error`` its standard error.
    """

    settings: dict[str, Any]
    runs: list[int] = field(default_factory=list)
    mean: float | None = None
    error: float | None = None
    n: int = 0


def find_runs(folder: Path) -> list[Run]:
    """Every run in ``folder`` or anywhere below it, by path; UserError if there is none."""
    name = one_line(folder)
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise UserError(f"{name} {what}; name a run's or a sweep's folder")
    found = []
    for path, names, files in os.walk(folder):
        if is_run({*names, *files}):
            found.append(Path(path))
        names[:] = set(names) - _NO_RUNS_IN
    if not found:
        files_of_runs = "no status.json, metrics.jsonl or .hydra"
        raise UserError(f"{name} holds no run, nor does any folder below it ({files_of_runs})")
    return [read_run(path) for path in sorted(found, key=natural)]


def natural(folder: Path) -> list[tuple[int, str]]:
    """A sort key by which 10-x comes after 9-x."""
    counts = [re.match(r"[0-9]{1,9}(?=-)", part) for part in folder.parts]
    return [(int(c[0]) if c else 10**9, part) for c, part in zip(counts, folder.parts, strict=True)]


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values are not the same in all of ``configs``, in the order of their first."""
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if len({_identity(config, key) for config in configs}) > 1]


def differing_settings(runs: Sequence[Run]) -> list[str]:
    """The configuration's keys that differ; a run that never began has only its overrides."""
    return differing([run.config for run in runs if run.composed] or [run.config for run in runs])


def is_parameter(key: str) -> bool:
    """Whether a key can affect the result: no seed, no name, nothing about where things go."""
    return _ASIDE.isdisjoint({key, key.partition(".")[0]})


def points_of(runs: Sequence[Run]) -> list[Point]:
    """The points that the runs are repeats of, best first; those without a result come last."""
    every = [key for key in differing_settings(runs) if is_parameter(key)]
    found: dict[Any, Point] = {}
    for i, run in enumerate(runs):
        if not run.config:
            continue
        # where only the overrides are known, other keys may be anything: they are told apart
        identity = (run.composed, *(_identity(run.config, key) for key in every))
        settings = {key: run.config[key] for key in every if key in run.config}
        found.setdefault(identity, Point(settings)).runs.append(i)
    for point in found.values():
        done = [runs[i].objective for i in point.runs if runs[i].state == "done"]
        values = [value for value in done if value is not None]
        point.n = len(values)
        point.mean = statistics.mean(values) if values else None
        point.error = statistics.stdev(values) / math.sqrt(point.n) if point.n > 1 else None
    return sorted(found.values(), key=lambda p: math.inf if p.mean is None else -p.mean)


def shared_start(names: Sequence[str]) -> int:
    """How many letters all names begin with, up to the end of a part of a path or of a word."""
    letters = zip(*names, strict=False) if len(names) > 1 else ()
    start = "".join(some[0] for some in takewhile(lambda some: len(set(some)) == 1, letters))
    return max(start.rfind(sign) for sign in "/-_ ") + 1


def own_overrides(runs: Sequence[Run]) -> list[str]:
    """Of each run, the overrides that not all runs have."""
    # of a job that never began only what varies is recorded
    with_some = [set(run.overrides) for run in runs if run.overrides and run.composed]
    common = set.intersection(*with_some) if len(with_some) > 1 else set()
    return [" ".join(word for word in run.overrides if word not in common) for run in runs]


def _identity(config: Mapping[str, Any], key: str) -> Any:
    """What makes two values the same: 1 is 1.0 but not true, and null is not missing."""
    value = config.get(key, ...)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return type(value).__name__, value
