"""What every tracker does, and the fan-out that keeps a failing one from failing the run."""

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
    """What a tracker may show of a run besides its numbers."""

    id: str
    """Unique and readable; names the run's files."""
    name: str
    project: str
    folder: Path
    """The run's own folder."""
    outputs: Path
    """The folder that all runs share."""
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    notes: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    """The whole resolved configuration, plain values only."""
    resumed: bool = False
    """Whether it continues a record of the same id."""
    epoch: int = 1
    """The epoch in which it continues: what was recorded of it and of later ones comes again."""


class Tracker(ABC):
    """Receives a run's numbers: ``start`` once, ``log`` for each row, ``finish`` once.

    Between them ``show`` brings non-scalar results; a tracker that does not define it ignores them.
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
        """Record a non-scalar result under ``name``, as of the optimizer step ``step``.

        Items are those of :mod:`eqprop.tracking.items`; kinds that a tracker does not know are to
        be ignored.
        """
        return None

    def abandon(self) -> None:
        """Release whatever is open after a failure: no more calls follow for this run."""
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

    def abandon(self) -> None:
        for tracker in self.active:
            with contextlib.suppress(Exception):
                tracker.abandon()
        self.active = []

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
                self._leave_out(tracker, error)

    def _leave_out(self, tracker: Tracker, error: Exception) -> None:
        self.active.remove(tracker)
        reason = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        log.warning(
            "%s failed and is left out; the run goes on and metrics.jsonl keeps its numbers (%s)",
            type(tracker).__name__,
            redact(one_line(f"{reason}{error}", 300)),
        )
        with contextlib.suppress(Exception):
            tracker.abandon()
