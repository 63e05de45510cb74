"""Where the points of a sweep come from, and what is told back of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Verdict = Literal["done", "failed", "pruned"]


@dataclass(frozen=True)
class Point:
    """One choice of a value on every axis.

    Attributes:
        number: 0, 1, …; unique in the sweep's folder.
        words: the overrides that make it.
        cell: a hash of its values; None where its number alone names it.
    """

    number: int
    words: tuple[str, ...]
    cell: str | None = None


@dataclass(frozen=True)
class Result:
    """What the runs of a point have come to.

    Attributes:
        mean: of the objectives of the ``n`` runs that are done; None without one.
        standard_error: of that mean; None with fewer than two.
        reason: one line where the state is not done.
    """

    state: Verdict
    mean: float | None
    standard_error: float | None
    n: int
    reason: str | None


class Points(Protocol):
    """Gives out points to be run."""

    searches: bool
    """Whether it learns from results: then a point that has failed needs no more runs."""
    ended: str | None
    """Why it gives no more points, where that is not that all are done."""

    def unfinished(self) -> list[Point]:
        """Return the points that an earlier command gave out and left without a result."""
        ...

    def next(self) -> Point | None:
        """Return another point, None where there is none to be run now."""
        ...

    def report(self, point: Point, epoch: int, accuracy: float) -> bool:
        """Say how a running point stands; returns whether it is hopeless."""
        ...

    def tell(self, point: Point, result: Result, about: dict[str, Any]) -> None:
        """Say what has become of a point; ``about`` is kept beside it."""
        ...


def result_of(jobs: Sequence[dict[str, Any]]) -> Result:
    """The result of a point from the lines of its jobs, of which none goes on.

    It is done if all of them are: the mean of those that did not fail would flatter it.
    """
    found = [float(job["objective"]) for job in jobs if job["state"] == "done"]
    mean = statistics.fmean(found) if found else None
    error = statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else None
    for state in ("pruned", "failed"):
        for job in jobs:
            if job["state"] == state:
                return Result(state, mean, error, len(found), _reason(job, len(jobs)))
    return Result("done", mean, error, len(found), None)


def _reason(job: dict[str, Any], repeats: int) -> str:
    reason = str(job["reason"])
    return f"with seed {job['seed']}: {reason}" if repeats > 1 else reason
