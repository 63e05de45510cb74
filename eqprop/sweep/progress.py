"""What a person sees of a sweep: a line a job and one for the whole, or plain lines in a file."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from eqprop.run.quiet import QuietConsole
from eqprop.sweep.glance import Glance, look
from eqprop.sweep.job import Handle, Job, JobLauncher, Outcome

EVERY = 0.5  # seconds between two looks at the running jobs


class Watched:
    """A launcher that shows what becomes of the jobs that are started by it.

    Args:
        launcher: who really starts them.
        total: how many there will be, if that is known.
        live: whether to draw lines that move; None draws them on a terminal only.
    """

    def __init__(
        self, launcher: JobLauncher, total: int | None = None, live: bool | None = None
    ) -> None:
        self.launcher = launcher
        self.capacity = launcher.capacity
        self.outcomes: list[Outcome] = []
        self.console = QuietConsole(soft_wrap=True, highlight=False, markup=False)
        wanted = sys.stdout.isatty() if live is None else live
        self.lines = _Lines(self.console, total) if wanted else None
        self.total = total

    def start(self, job: Job) -> Handle:
        """Start a job and show that."""
        handle = self.launcher.start(job)
        if self.lines is None:
            self.console.print(f"job {job.number} started: {job.label}  {short(job.folder)}")
        else:
            self.lines.add(job, self.total)
        return _Watched(handle, self)

    def close(self) -> None:
        """Take the display away and let go of the launcher."""
        if self.lines is not None:
            self.lines.close()
        self.launcher.close()

    def still_running(self, job: Job) -> None:
        """Show how far a job has come."""
        if self.lines is not None:
            self.lines.move(job, self.outcomes, self.total)

    def ended(self, outcome: Outcome) -> None:
        """Show how a job ended."""
        self.outcomes.append(outcome)
        if self.lines is not None:
            self.lines.remove(outcome.job, self.outcomes, self.total)
        self.console.print(told(outcome))


class _Watched:
    """A handle that tells the display what it learns."""

    def __init__(self, handle: Handle, watcher: Watched) -> None:
        self.handle = handle
        self.job = handle.job
        self.watcher = watcher
        self._has_ended = False

    def poll(self) -> Outcome | None:
        outcome = self.handle.poll()
        if outcome is None:
            self.watcher.still_running(self.job)
        elif not self._has_ended:
            self._has_ended = True
            self.watcher.ended(outcome)
        return outcome

    def stop(self) -> None:
        self.handle.stop()


class _Lines:
    """The moving lines."""

    def __init__(self, console: QuietConsole, total: int | None) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(),
            console=console,
            refresh_per_second=4,
            transient=True,
        )
        self.whole = self.progress.add_task("sweep", total=total, told="")
        self.jobs: dict[int, TaskID] = {}
        self.epochs: dict[int, int | None] = {}
        self.looked: dict[int, float] = {}
        self.progress.start()

    def add(self, job: Job, total: int | None) -> None:
        name = f"{job.number} {job.label}".strip()
        name = name if len(name) <= 48 else name[:47] + "…"
        task = self.progress.add_task(name, total=None, told="starts")
        self.jobs[job.number] = task
        self.progress.update(self.whole, total=total)

    def move(self, job: Job, outcomes: list[Outcome], total: int | None) -> None:
        now = time.monotonic()
        task = self.jobs.get(job.number)
        if task is None or now - self.looked.get(job.number, float("-inf")) < EVERY:
            return
        self.looked[job.number] = now
        seen = look(job.folder, self.epochs.get(job.number))
        self.epochs[job.number] = seen.epochs
        self.progress.update(task, completed=seen.epoch, total=seen.epochs, told=position(seen))

    def remove(self, job: Job, outcomes: list[Outcome], total: int | None) -> None:
        task = self.jobs.pop(job.number, None)
        if task is not None:
            self.progress.remove_task(task)
        self.progress.update(
            self.whole, completed=len(outcomes), total=total, told=counted(outcomes)
        )

    def close(self) -> None:
        self.progress.stop()


def position(seen: Glance) -> str:
    """The epoch and the accuracy of a running job in a few words."""
    if not seen.epoch:
        return "starts"
    of = "" if seen.epochs is None else f"/{seen.epochs}"
    accuracy = "" if seen.accuracy is None else f"  {100 * seen.accuracy:.2f} %"
    return f"epoch {seen.epoch}{of}{accuracy}"


def told(outcome: Outcome) -> str:
    """One line on the end of a job."""
    job = outcome.job
    head = f"job {job.number} {outcome.state} after {outcome.seconds:.0f} s: {job.label}"
    if outcome.objective is not None and outcome.state == "done":
        return f"{head}  objective {outcome.objective:.4f}"
    return f"{head}  {outcome.reason}"


def counted(outcomes: list[Outcome]) -> str:
    """How many jobs ended how."""
    names = ("done", "failed", "pruned", "interrupted")
    counts = {name: sum(outcome.state == name for outcome in outcomes) for name in names}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def short(folder: Path) -> str:
    """A folder as seen from here, where that is shorter."""
    relative = os.path.relpath(folder)
    return str(folder) if relative.startswith("..") else relative
