"""Timing things side by side in one process, so that a drift of the machine hits all alike."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from eqprop.run import environment
from eqprop.run.errors import UserError
from eqprop.run.files import write_atomically
from eqprop.run.output import prepare_output
from eqprop.run.streams import flush, open_streams

TURN = 0.02  # seconds: how long one turn of a case lasts at least, by repeating it


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


def alternate(entrants: dict[str, Callable[[int], Any]], number: int) -> Iterator[tuple[str, Any]]:
    """What each gives for turn ``number``, in an order that turns round from one to the next."""
    turn = list(entrants.items())
    yield from ((who, run(number)) for who, run in (turn if number % 2 else reversed(turn)))


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for the files of runs, with a log file there as Hydra would have it."""
    with tempfile.TemporaryDirectory() as temporary:
        log = logging.FileHandler(Path(temporary) / "run.log", encoding="utf-8")
        logging.basicConfig(level=logging.INFO, handlers=[log])
        try:
            yield Path(temporary)
        finally:
            log.close()


def quartiles(values: Any) -> dict[str, float]:
    """``median``, ``q1`` and ``q3`` of some numbers, at least one."""
    known = sorted(values)
    if len(known) == 1:
        return dict.fromkeys(("median", "q1", "q3"), known[0])
    q1, median, q3 = statistics.quantiles(known, n=4, method="inclusive")
    return {"median": median, "q1": q1, "q3": q3}


def interleave(
    cases: Sequence[Case],
    rounds: int,
    budget: float = float("inf"),
    wait: Callable[[], object] = lambda: None,
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
    timings = [_plan(case, rounds, budget, wait, turn) if warm else _once(case, rounds)
               for case in cases]  # fmt: skip
    for i in range(rounds):
        shift = i % len(timings)
        for timing in timings[shift:] + timings[:shift]:
            if _due(i, timing.turns, rounds):
                timing.seconds[i] = _measure(timing, wait, warm and timing.repeats > 1)
    return timings


def _plan(
    case: Case, rounds: int, budget: float, wait: Callable[[], object], turn: float
) -> Timing:
    case.run()
    seconds = max(_measure(Timing(case), wait, False), 1e-9)
    repeats = max(1, round(turn / seconds))
    affordable = int(min(budget / (seconds * repeats), rounds))
    return Timing(case, repeats, min(rounds, max(3, affordable)))


def _once(case: Case, rounds: int) -> Timing:
    return Timing(case, 1, rounds)


def _due(i: int, turns: int, rounds: int) -> bool:
    """Whether one of ``turns`` turns, spread evenly over the rounds, falls on round ``i``."""
    return i == 0 or (i * (turns - 1)) // (rounds - 1) > ((i - 1) * (turns - 1)) // (rounds - 1)


def _measure(timing: Timing, wait: Callable[[], object], warm: bool) -> float:
    if warm:  # the case before has had the caches to itself
        timing.case.run()
    wait()
    start = time.perf_counter()
    for _ in range(timing.repeats):
        timing.case.run()
    wait()
    return (time.perf_counter() - start) / timing.repeats


def device_wait(device: str) -> Callable[[], object]:
    """What waits for the device: nothing on a CPU."""
    if device != "cuda":
        return lambda: None
    import torch

    return torch.cuda.synchronize


def machine() -> dict[str, Any]:
    """The hardware, versions and commit that numbers belong to."""
    folder = Path(__file__).resolve().parents[1]
    state: dict[str, Any] = {
        "hardware": environment.hardware(),
        "versions": environment.versions(),
        "git": environment.git_state(folder, diff=False),
        "load_before": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        state["threads"] = torch.get_num_threads()
        state["cuda"] = torch.version.cuda
    return state


def write_json(path: str | None, report: Any) -> None:
    """Write the report if a path was given; a folder that is not there is made.

    Raises:
        UserError: if it cannot be written.
    """
    if path is None:
        return
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(report, indent=1) + "\n").encode())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def natural(text: str) -> int:
    """A whole number >= 1, for argparse."""
    with contextlib.suppress(ValueError):
        if int(text) >= 1:
            return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= 1")


def positive(text: str) -> float:
    """A finite number > 0, for argparse."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a finite number > 0")


def exit_cleanly(main: Callable[[], object]) -> NoReturn:
    """Run a script's main, and exit with the status that it returns, 0 if none.

    A mistake of the user is one line, Ctrl-C status 130. A standard stream that is closed, whose
    reader goes away (``… | head``) or that has few letters is no failure.
    """
    open_streams()
    prepare_output()
    status = 0
    sys.path.append(os.getcwd())  # an energy of one's own lies beside the command
    try:
        found = main()
        status = found if isinstance(found, int) else 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = error.exit_code
    except KeyboardInterrupt:
        status = 130
    flush()
    sys.exit(status)
