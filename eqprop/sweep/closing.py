"""The end of a sweep: what failed, why and where, and the exit status that follows."""

from __future__ import annotations

from collections.abc import Iterable

from eqprop.sweep.job import Outcome
from eqprop.sweep.progress import short


def failure_lines(outcomes: Iterable[Outcome]) -> list[str]:
    """One line for each job that failed or was interrupted: its overrides, reason and folder."""
    lines = []
    for outcome in sorted(outcomes, key=lambda outcome: outcome.job.number):
        if outcome.state in ("failed", "interrupted"):
            job = outcome.job
            label = f" ({job.label})" if job.label else ""
            lines.append(
                f"job {job.number}{label} {outcome.state}: {outcome.reason}; {short(job.folder)}"
            )
    return lines


def exit_status(outcomes: Iterable[Outcome]) -> int:
    """0 if no job failed, else 1."""
    return int(any(outcome.state in ("failed", "interrupted") for outcome in outcomes))
