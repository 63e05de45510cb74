"""What a tracker does and is given, and the fan-out that keeps a failing one from failing a run."""

from __future__ import annotations

import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from eqprop.run.errors import UserError
from eqprop.run.redact import redact
from eqprop.run.text import one_line

State = Literal["done", "failed", "interrupted"]
Row = Mapping[str, float | int]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunInfo:
    """What a tracker may show of a run besides its numbers.

    ``id`` is unique and readable, ``outputs`` the folder that all runs share, ``config`` the whole
    resolved configuration in plain values. ``epoch`` is where a resumed run goes on: what was
    recorded of that epoch and of later ones comes again.
    """

    id: str
    name: str
    project: str
    folder: Path
    outputs: Path
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    notes: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    resumed: bool = False
    epoch: int = 1


@dataclass(frozen=True)
class Curve:
    """How one phase (free or nudged) moved towards its equilibrium, on one batch of samples.

    ``energy`` is the batch mean of F = E + β C, ``residual`` is ``Σ_l mean_batch ‖∂F/∂u[l]‖₂``:
    both where the phase starts and after each of its steps. ``step`` counts the optimizer's.
    """

    epoch: int
    step: int
    phase: str
    energy: tuple[float, ...]
    residual: tuple[float, ...]


@dataclass(frozen=True)
class ConfusionMatrix:
    """How many samples of each class (a row) were taken for each class (a column)."""

    counts: tuple[tuple[int, ...], ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Mistake:
    """One sample of the test set, by its ``index`` there, that was taken for another class.

    The probabilities are the softmax of the output; ``cost`` is C(u[L], y), without β. ``picture``
    is (height, width) or (height, width, 3), uint8; None where samples are no images.
    """

    index: int
    target: int
    predicted: int
    probability: float
    target_probability: float
    cost: float
    picture: Any = None


@dataclass(frozen=True)
class Mistakes:
    """The mistakes that cost most, the worst first."""

    worst: tuple[Mistake, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """Something to look at: (height, width) or (height, width, 3), uint8."""

    pixels: Any


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint of the run that is over; ``alias`` is best or last."""

    path: Path
    alias: str


class Tracker(ABC):
    """Receives a run's numbers: ``start`` once, ``log`` for each row, ``finish`` once.

    A method that raises costs the user one warning and the run this tracker, unless ``essential``.
    """

    essential: ClassVar[bool] = False

    @abstractmethod
    def start(self, run: RunInfo) -> None:
        """Open the record of ``run``."""

    @abstractmethod
    def log(self, row: Row) -> None:
        """Record one row of numbers by name; ``step`` and ``epoch`` are among them."""

    @abstractmethod
    def finish(self, summary: Mapping[str, Any], state: State) -> None:
        """Close the record with its summary (best and last results) and how the run ended."""

    def show(self, name: str, item: object, step: int) -> None:
        """Record an item (a curve, mistakes, …), as of the optimizer step; or ignore its kind."""
        return None

    def abandon(self) -> None:
        """Release what is open after a failure; no more calls follow."""
        return None

    def location(self) -> str | None:
        """One line that tells a person where or how to look; None: nothing to look at."""
        return None


class Trackers(Tracker):
    """Hands every call on to each of ``trackers``; itself used as one tracker.

    One that raises is left out with a one-line warning. Errors of an essential one, and exceptions
    that are no errors (Ctrl-C), pass through.
    """

    essential = True

    def __init__(self, trackers: Iterable[Tracker]) -> None:
        self.active = list(trackers)

    def start(self, run: RunInfo) -> None:
        self._each(lambda tracker: tracker.start(run))

    def log(self, row: Row) -> None:
        self._each(lambda tracker: tracker.log(row))

    def show(self, name: str, item: object, step: int) -> None:
        self._each(lambda tracker: tracker.show(name, item, step))

    def finish(self, summary: Mapping[str, Any], state: State) -> None:
        self._each(lambda tracker: tracker.finish(summary, state))

    def locations(self) -> list[str]:
        """The line of each tracker that has one."""
        return [line for tracker in self.active if (line := tracker.location()) is not None]

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for tracker in list(self.active):
            try:
                call(tracker)
            except Exception as error:
                if tracker.essential:
                    raise
                self.active.remove(tracker)
                kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
                reason = redact(one_line(f"{kind}{error}", 300))
                name, goes_on = type(tracker).__name__, "the run goes on, metrics.jsonl has it all"
                log.warning("%s failed and is left out; %s (%s)", name, goes_on, reason)
                with contextlib.suppress(Exception):
                    tracker.abandon()
