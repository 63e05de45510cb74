"""Timing cases side by side in one process, so that a drift of the machine affects all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

TURN = 0.02  # seconds: how long one turn of a case lasts at least, by repeating it
Wait = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """Something to time: ``run`` is called again and again."""

    name: str
    run: Callable[[], object]
    labels: dict[str, Any] = field(default_factory=dict)


@dataclass
class Timing:
    """Seconds of one call, by the round in which they were measured."""

    case: Case
    repeats: int = 1
    turns: int = 1
    seconds: dict[int, float] = field(default_factory=dict)

    def spread(self) -> dict[str, float]:
        """Median and quartiles, in seconds."""
        return {f"{name}_s": value for name, value in quartiles(self.seconds.values()).items()}

    def over(self, other: Timing) -> dict[str, float]:
        """Median and quartiles of this time over the other's, round by round."""
        both = self.seconds.keys() & other.seconds.keys()
        return quartiles(self.seconds[i] / other.seconds[i] for i in both)


def quartiles(values: Iterable[float]) -> dict[str, float]:
    """``median``, ``q1`` and ``q3`` of some numbers, at least one."""
    known = sorted(values)
    if len(known) == 1:
        return dict.fromkeys(("median", "q1", "q3"), known[0])
    q1, median, q3 = statistics.quantiles(known, n=4, method="inclusive")
    return {"median": median, "q1": q1, "q3": q3}


def alternate(entrants: dict[str, Callable[[int], Any]], number: int) -> Iterator[tuple[str, Any]]:
    """What each gives for turn ``number``; the order is reversed from one turn to the next."""
    turn = list(entrants.items())
    yield from ((who, run(number)) for who, run in (turn if number % 2 else reversed(turn)))


def interleave(
    cases: Sequence[Case],
    rounds: int,
    budget: float = float("inf"),
    wait: Wait = lambda: None,
    warm: bool = True,
    turn: float = TURN,
) -> list[Timing]:
    """Time every case once a round, in an order that rotates.

    Args:
        cases: what to time.
        rounds: how often; every case runs in the first and the last round at least.
        budget: seconds for one case: a slow one sits out some rounds, evenly spread.
        wait: returns when the device has done what it was given.
        warm: call each case before timing it, once at the start and, if it is short, every turn.
        turn: seconds that a turn lasts at least, by calling the case several times.
    """
    if warm:
        timings = [_plan(case, rounds, budget, wait, turn) for case in cases]
    else:
        timings = [Timing(case, turns=rounds) for case in cases]
    for i in range(rounds):
        shift = i % len(timings)
        for timing in timings[shift:] + timings[:shift]:
            if due(i, timing.turns, rounds):
                timing.seconds[i] = _measure(timing, wait, warm and timing.repeats > 1)
    return timings


def due(i: int, turns: int, rounds: int) -> bool:
    """Whether one of ``turns`` turns, spread evenly over the rounds, falls on round ``i``."""
    return i == 0 or (i * (turns - 1)) // (rounds - 1) > ((i - 1) * (turns - 1)) // (rounds - 1)


def _plan(case: Case, rounds: int, budget: float, wait: Wait, turn: float) -> Timing:
    case.run()
    seconds = max(_measure(Timing(case), wait, False), 1e-9)
    repeats = max(1, round(turn / seconds))
    affordable = int(min(budget / (seconds * repeats), rounds))
    return Timing(case, repeats, min(rounds, max(3, affordable)))


def _measure(timing: Timing, wait: Wait, warm: bool) -> float:
    if warm:  # the case before has had the caches to itself
        timing.case.run()
    wait()
    start = time.perf_counter()
    for _ in range(timing.repeats):
        timing.case.run()
    wait()
    return (time.perf_counter() - start) / timing.repeats


def device_wait(device: str) -> Wait:
    """What waits for the device: nothing on a CPU."""
    if device != "cuda":
        return lambda: None
    import torch

    return torch.cuda.synchronize
