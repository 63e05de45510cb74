"""What passes between a sweeper and the launchers: jobs go in, outcomes come back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

State = Literal["done", "failed", "pruned", "interrupted"]


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        number: 0, 1, ...; unique in the sweep's folder, never used again.
        overrides: the job's own Hydra overrides, the sweep's fixed ones and its cell's, without
            ``hydra.run.dir``.
        folder: its own, absolute; ``hydra.run.dir``.
        label: short, for progress lines: the overrides that differ.
    """

    number: int
    overrides: tuple[str, ...]
    folder: Path
    label: str


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        objective: finite when the job is done.
        reason: one line when it is not.
        exit_code: of its process; negative: the signal that killed it; None where nobody knows.
        seconds: from its start to its end.
    """

    job: Job
    state: State
    objective: float | None
    reason: str | None
    exit_code: int | None
    seconds: float


class Handle(Protocol):
    """A job that was started."""

    job: Job

    def poll(self) -> Outcome | None:
        """Return how it ended, None while it runs; never blocks, never raises."""
        ...

    def stop(self) -> None:
        """Ask it to save and end, and kill it after a grace time; ``poll`` then tells."""
        ...


class JobLauncher(Protocol):
    """Starts jobs, on this machine or elsewhere."""

    capacity: int
    """How many jobs it takes at a time."""

    def start(self, job: Job) -> Handle:
        """Start a job; it is in the launcher's hands until its handle's ``poll`` tells."""
        ...

    def close(self) -> None:
        """Let go of what the launcher holds; jobs that still run are stopped."""
        ...
