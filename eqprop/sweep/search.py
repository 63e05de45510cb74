"""The loop of a sweep: points become jobs, jobs become results; everything is written down first.

Whatever moment this process is killed at, another one finds in the folder what was given out, and
goes on: jobs that still run are waited for, results that nobody told are told, the rest is resumed.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from eqprop.run.lock import read_status
from eqprop.run.signals import REQUEUE, Stop
from eqprop.sweep.book import Book, Line
from eqprop.sweep.handles import is_running
from eqprop.sweep.job import Handle, Outcome
from eqprop.sweep.jobs import JobMaker
from eqprop.sweep.outcome import End, judge
from eqprop.sweep.points import Point, Points, result_of
from eqprop.sweep.progress import Watched
from eqprop.sweep.pruning import Curve, Prunable

EVERY = 0.1  # seconds between two looks at the running jobs
REQUEUES = 20  # of one job under one command
DOUBT = 1.0
"""Seconds after a job was interrupted within which the same signal may reach this process."""


class Search:
    """Runs what ``points`` gives out until it gives no more.

    Args:
        points: where they come from.
        maker: makes the jobs of a point.
        book: the sweep's record.
        watched: starts jobs and shows them; around ``prunable``.
        prunable: the same launcher, told which jobs are stopped for being hopeless.
        stop: whether this process has been told to end.
        prunes: whether running jobs are compared by their accuracy.
    """

    def __init__(
        self,
        points: Points,
        maker: JobMaker,
        book: Book,
        watched: Watched,
        prunable: Prunable,
        stop: Stop,
        prunes: bool = False,
    ) -> None:
        self.points = points
        self.maker = maker
        self.book = book
        self.watched = watched
        self.prunable = prunable
        self.stop = stop
        self.prunes = prunes
        self.open: dict[int, Point] = {}
        self.waiting: deque[int] = deque()
        self.running: dict[int, Handle] = {}
        self.curves: dict[int, Curve] = {}
        self.requeued: Counter[int] = Counter()

    def run(self) -> None:
        """Run to the end, or until told to stop and all running jobs have saved."""
        for point in self.points.unfinished():
            self.open_point(point)
        asked = False
        self.fill()
        while self.running:
            if self.stop.requested is not None and not asked:
                asked = True
                self.ask_all_to_stop()
            time.sleep(EVERY)
            self.collect()
            self.prune()
            self.fill()

    def fill(self) -> None:
        """Start jobs while there is room and nobody has said stop."""
        while self.stop.requested is None and len(self.running) < self.watched.capacity:
            number = self.next_number()
            if number is None:
                return
            self.start(number)

    def next_number(self) -> int | None:
        """The next job, of an open point or of a new one."""
        while True:
            for number in self.waiting:
                if not self.is_early(self.book.jobs[number]):
                    self.waiting.remove(number)
                    return number
            point = self.points.next()
            if point is None:
                return None
            self.open_point(point)

    def is_early(self, job: Line) -> bool:
        """Whether a repeat waits for the verdict on its point's first run."""
        if not self.prunes or job["repeat"] == 0:
            return False
        return self.book.jobs_of(job["point"])[0]["state"] != "done"

    def open_point(self, point: Point) -> None:
        """Take up a point: write it down, then queue those of its jobs that have not ended."""
        self.open[point.number] = point
        self.maker.write_down(point)
        for job in self.book.jobs_of(point.number):
            if job["state"] in ("waiting", "running", "interrupted"):
                self.waiting.append(job["number"])
        self.settle(point)

    def start(self, number: int) -> None:
        """Start a job, or find that it has ended while nobody watched, or take over its process."""
        line = self.book.jobs[number]
        job = self.maker.job(self.open[line["point"]], line)
        status = read_status(job.folder) or {}
        ended = line["state"] == "running" and status.get("state") in ("done", "failed")
        if ended and not is_running(job):
            outcome = judge(job, End(None, duration(status)))
            self.watched.ended(outcome)
            self.ended(outcome)
            return
        self.book.note_job(number, state="running")
        self.running[number] = self.watched.start(job)
        if self.prunes and line["repeat"] == 0:
            self.curves[number] = Curve(job.folder)

    def collect(self) -> None:
        """Write down the outcome of every job that has ended."""
        for number, handle in list(self.running.items()):
            outcome = handle.poll()
            if outcome is not None:
                del self.running[number]
                self.curves.pop(number, None)
                self.ended(outcome)

    def ended(self, outcome: Outcome) -> None:
        """Write down how a job ended, then what that makes of its point."""
        number, state = outcome.job.number, outcome.state
        if state == "interrupted" and self.stop.requested is None:
            # it asks to be queued again, or it was an earlier command that stopped it
            if outcome.exit_code in (REQUEUE, None) and self.requeued[number] < REQUEUES:
                self.requeued[number] += 1
                self.book.note_job(number, state="interrupted", reason=outcome.reason)
                self.waiting.appendleft(number)
                return
            self.wait_for_the_same_signal()
            state = "interrupted" if self.stop.requested is not None else "failed"
        line = self.book.note_job(
            number,
            state=state,
            objective=outcome.objective,
            reason=outcome.reason,
            exit_code=outcome.exit_code,
            seconds=round(outcome.seconds, 3),
        )
        self.settle(self.open[line["point"]])

    def wait_for_the_same_signal(self) -> None:
        """Whoever stops a machine tells every process, not all at the same moment."""
        end = time.monotonic() + DOUBT
        while self.stop.requested is None and time.monotonic() < end:
            time.sleep(EVERY)

    def settle(self, point: Point) -> None:
        """Once no job of a point goes on, write down its result and tell it."""
        jobs = self.book.jobs_of(point.number)
        lost = next((job for job in jobs if job["state"] in ("failed", "pruned")), None)
        if lost is not None and self.points.searches:
            self.skip(jobs)
            jobs = self.book.jobs_of(point.number)
        ended = ("done", "failed", "pruned", "skipped")
        if any(job["state"] not in ended for job in jobs):
            return
        result = result_of(jobs)
        told: dict[str, Any] = {
            "mean": result.mean,
            "standard_error": result.standard_error,
            "n": result.n,
            "reason": result.reason,
        }
        self.book.note_point(point.number, state=result.state, **told)
        folders = [job["folder"] for job in jobs]
        self.points.tell(point, result, {**told, "folders": folders})
        del self.open[point.number]

    def skip(self, jobs: list[Line]) -> None:
        """Start no more runs of a point whose result is known already."""
        for job in jobs:
            if job["number"] in self.waiting:
                self.waiting.remove(job["number"])
                self.book.note_job(job["number"], state="skipped")

    def prune(self) -> None:
        """Stop the jobs whose points are hopeless."""
        for number, curve in self.curves.items():
            point = self.open[self.book.jobs[number]["point"]]
            for epoch, accuracy in curve.news():
                hopeless = self.points.report(point, epoch, accuracy)
                if hopeless and number not in self.prunable.why:
                    why = f"accuracy {100 * accuracy:.2f} % after epoch {epoch} (sweep.pruner)"
                    self.prunable.why[number] = why
                    self.running[number].stop()

    def ask_all_to_stop(self) -> None:
        """Ask every running job to save and end."""
        if self.running:
            self.watched.console.print(
                f"{len(self.running)} running job(s) save and end; again to end at once"
            )
        for handle in self.running.values():
            handle.stop()


def duration(status: Mapping[str, Any]) -> float:
    """Seconds from a run's start to its end, as it recorded them; 0 where it did not."""
    try:
        start, end = (datetime.fromisoformat(status[key]) for key in ("start", "end"))
    except (KeyError, TypeError, ValueError):
        return 0.0
    return (end - start).total_seconds()
