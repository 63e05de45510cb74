"""Which settings differ between runs, and what the repeats of one point are together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eqprop.run.reading import Run

SEED = "seed"
_ASIDE = ("name", "resume", "rerun", "tracking", "paths", "sweep", "checkpoint", "hydra")
_ASIDE_KEYS = ("trainer.progress", "device.threads")


@dataclass
class Point:
    """Runs whose configurations differ only in the seed.

    Attributes:
        settings: the parameters that differ between points.
        runs: their numbers.
        mean: of the finite objectives of those that are done; None if there is none.
        error: the mean's standard error; None of fewer than two.
        n: how many objectives the mean is of.
    """

    settings: dict[str, Any]
    runs: list[int] = field(default_factory=list)
    mean: float | None = None
    error: float | None = None
    n: int = 0


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values are not the same in all of ``configs``, in the order of their first."""
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if len({_identity(config, key) for config in configs}) > 1]


def differing_settings(runs: Sequence[Run]) -> list[str]:
    """The configuration's keys that differ; a run that never began has only its overrides."""
    return differing([run.config for run in runs if run.composed] or [run.config for run in runs])


def is_parameter(key: str) -> bool:
    """Whether a key can affect the result: no seed, no name, nothing about where things go."""
    aside = key.partition(".")[0] in _ASIDE or key in _ASIDE_KEYS
    return key != SEED and not aside


def points_of(runs: Sequence[Run]) -> list[Point]:
    """The points that the runs are repeats of, best first; those without a result come last."""
    every = [key for key in differing_settings(runs) if is_parameter(key)]
    found: dict[Any, Point] = {}
    for number, run in enumerate(runs):
        if not run.config:
            continue
        # where only the overrides are known, other keys may be anything: they are told apart
        identity = (run.composed, *(_identity(run.config, key) for key in every))
        settings = {key: run.config[key] for key in every if key in run.config}
        found.setdefault(identity, Point(settings)).runs.append(number)
    for point in found.values():
        done = [runs[i].objective for i in point.runs if runs[i].state == "done"]
        values = [value for value in done if value is not None]
        point.n = len(values)
        point.mean = statistics.mean(values) if values else None
        point.error = statistics.stdev(values) / math.sqrt(point.n) if point.n > 1 else None
    return sorted(found.values(), key=lambda p: math.inf if p.mean is None else -p.mean)


def best_first(runs: Sequence[Run]) -> list[int]:
    """The numbers of the runs by objective, the greatest first; those without one come last."""
    objectives = [math.inf if run.objective is None else -run.objective for run in runs]
    return sorted(range(len(runs)), key=lambda i: objectives[i])


def own_overrides(runs: Sequence[Run]) -> list[str]:
    """Of each run, the overrides that not all runs have."""
    # of a job that never began only what varies is recorded
    with_some = [set(run.overrides) for run in runs if run.overrides and run.composed]
    common = set.intersection(*with_some) if len(with_some) > 1 else set()
    return [" ".join(word for word in run.overrides if word not in common) for run in runs]


def _identity(config: Mapping[str, Any], key: str) -> Any:
    """What makes two values the same: 1 is 1.0 but not true, and null is not missing."""
    if key not in config:
        return ()
    value = config[key]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return type(value).__name__, value
