"""What the user sees of a sweep: a line a job while it runs, and the summary at the end."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from eqprop.sweep.job import Job, Outcome

_NAMES = {
    TrialState.COMPLETE: "done",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "unfinished",
}


class Display:
    """A line for each job that starts or ends; within it on a terminal, moving lines as well.

    ``total`` is how many jobs there will be, if that is known; ``live`` draws moving lines;
    ``head`` is a line before the first job.
    """

    def __init__(self, total: int | None, live: bool | None = None, head: str = "") -> None:
        console = Console(soft_wrap=True, highlight=False, markup=False)
        columns = TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn()
        live = sys.stdout.isatty() if live is None else live
        self._bars = Progress(*columns, console=console, transient=True, disable=not live)
        self._whole = self._bars.add_task("sweep", total=total)
        self._tasks: dict[int, TaskID] = {}
        self.say = console.print
        self._head = head

    def __enter__(self) -> Display:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def started(self, job: Job) -> None:
        """Show that a job has started."""
        if self._head:
            self.say(self._head)
            self._head = ""
        if self._bars.disable:
            self.say(f"job {job.number} started: {job.label}  {short(job.folder)}")
        self._tasks[job.number] = self._bars.add_task(f"{job.number} {job.label}", total=None)

    def moved(self, job: Job, epoch: int, accuracy: float) -> None:
        """Show how far a job has come."""
        told = f"{job.number} {job.label[:48]}  epoch {epoch}  {100 * accuracy:.2f} %"
        self._bars.update(self._tasks[job.number], description=told)

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Show how a job ended."""
        self._bars.remove_task(self._tasks.pop(job.number))
        self._bars.advance(self._whole)
        value = f"objective {outcome.objective:.4f}" if outcome.objective is not None else ""
        head = f"job {job.number} {outcome.state} after {outcome.seconds:.0f} s: {job.label}"
        self.say(f"{head}  {outcome.reason or value}")


def summary(folder: Path, trials: Sequence[FrozenTrial], ended: str | None) -> Iterator[str]:
    """Yield why it ended, and a line for each failed run, for the best point and for the whole."""
    if ended is not None:
        yield ended
    runs = [(trial, run) for trial in trials for run in trial.user_attrs.get("runs", [])]
    for trial, run in runs:
        if run["state"] == "failed":
            told = f" ({label(trial.user_attrs['overrides'], run['seed'])})".replace(" ()", "")
            where = short(folder / run["folder"])
            yield f"job {run['number']}{told} failed: {run['reason']}; {where}"
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if done:
        yield _best(folder, max(done, key=lambda trial: trial.value or 0.0))
    counts = Counter(trial.state for trial in trials)
    shown = [state for state in _NAMES if counts[state] or state == TrialState.COMPLETE]
    told = ", ".join(f"{counts[state]} {_NAMES[state]}" for state in shown)
    if len(runs) != len(trials):
        finished = sum(run["state"] == "done" for _, run in runs)
        told += f" of {len(trials)} points ({finished} of {len(runs)} runs done)"
    yield f"{told}  {short(folder)}"


def label(overrides: Sequence[str], seed: int | None = None) -> str:
    """Return what tells a job from the others of its sweep, in few words."""
    words = [_shortened(word) for word in overrides]
    return " ".join(words if seed is None else [*words, f"seed={seed}"])


def short(folder: Path) -> str:
    """Return a folder as seen from here, where that is shorter."""
    relative = os.path.relpath(folder)
    return str(folder) if relative.startswith("..") else relative


def _best(folder: Path, trial: FrozenTrial) -> str:
    about: dict[str, Any] = trial.user_attrs
    error = about.get("standard_error")
    around = "" if error is None else f" ± {error:.4f} ({len(about['runs'])} runs)"
    words = " ".join(about["overrides"]) or "the only point"
    return f"best {trial.value:.4f}{around}: {words}  {short(folder / about['runs'][0]['folder'])}"


def _shortened(word: str) -> str:
    key, _, value = word.partition("=")
    try:
        return f"{key}={float(value):.4g}" if "." in value else word
    except ValueError:
        return word
