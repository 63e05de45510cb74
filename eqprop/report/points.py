"""Which settings differ between runs, and what the repeats of one point are together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eqprop.report.reading import Run

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


def is_parameter(key: str) -> bool:
    """Whether a key can change a result: no seed, no name, nothing about where things go."""
    aside = key.partition(".")[0] in _ASIDE or key in _ASIDE_KEYS
    return key != SEED and not aside


def points_of(runs: Sequence[Run]) -> list[Point]:
    """The points that the runs are repeats of, best first; those without a result come last."""
    whole = [run.config for run in runs if run.composed]
    every = [key for key in differing(whole or [run.config for run in runs]) if is_parameter(key)]
    found: dict[Any, Point] = {}
    for number, run in enumerate(runs):
        if not run.config:
            continue
        # where only the overrides are known, other keys may be anything: they are told apart
        identity = (run.composed, *(_identity(run.config, key) for key in every))
        settings = {key: run.config[key] for key in every if key in run.config}
        found.setdefault(identity, Point(settings)).runs.append(number)
    for point in found.values():
        done = [runs[i] for i in point.runs if runs[i].state == "done"]
        _summarize(point, [run.objective for run in done if run.objective is not None])
    return sorted(found.values(), key=lambda p: math.inf if p.mean is None else -p.mean)


def _summarize(point: Point, values: Sequence[float]) -> None:
    """Mean and standard error: the deviation with n - 1 in it over the root of n."""
    point.n = n = len(values)
    if n == 0:
        return
    point.mean = math.fsum(value / n for value in values)
    if n > 1:
        squares = math.fsum((value - point.mean) ** 2 for value in values)
        point.error = math.sqrt(squares / (n - 1) / n)


def _identity(config: Mapping[str, Any], key: str) -> Any:
    """What makes two values the same: 1 is 1.0 but not true, and null is not missing."""
    if key not in config:
        return ()
    value = config[key]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return type(value).__name__, value
