"""The loop of a sweep: points become jobs, jobs become results; everything is written down first.

At whatever moment this process is killed, the same command finds in the folder what was started,
takes the results that nobody recorded, and resumes the rest.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from eqprop.run.errors import TRACEBACK, ConfigError
from eqprop.run.lock import is_alive, read_status
from eqprop.run.reading import read_rows
from eqprop.run.signals import Stop
from eqprop.run.text import key_of, number, quoted
from eqprop.sweep.display import Display, label
from eqprop.sweep.job import Handle, Job, Launcher, judge, record_end
from eqprop.sweep.plan import Plan
from eqprop.sweep.study import ELSEWHERE, Point, Record, Run

_EVERY = 0.1  # seconds between two looks at the running jobs
_CURVES_EVERY = 0.5  # seconds between two looks at their accuracies
_GRACE = (5.0, 30.0)  # seconds to save: as long as a job may run, within these bounds
_POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class Active:
    """A job that runs."""

    point: Point
    run: Run
    job: Job
    handle: Handle
    looked: float = 0.0
    hopeless: str | None = None


class Sweeper:
    """Runs the points of a record until there are no more, or it is told to stop."""

    def __init__(self, record: Record, launcher: Launcher, display: Display, stop: Stop) -> None:
        self.record = record
        self.plan = record.plan
        self.launcher = launcher
        self.display = display
        self.stop = stop
        self.waiting: list[tuple[Point, Run]] = []
        self.running: list[Active] = []
        self.number = max((run.number for run in record.runs), default=-1)
        self.folders = {run.folder for run in record.runs}

    def run(self) -> None:
        """Run to the end, or until told to stop and all running jobs have saved."""
        for point in self.record.unfinished():
            self._open(point)
        asked = False
        self._fill()
        while self.running:
            if self.stop.requested is not None and not asked:
                asked = True
                count = len(self.running)
                self.display.say(f"{count} running job(s) save and end; again to end at once")
                for active in self.running:
                    active.handle.stop()
            time.sleep(_EVERY)
            for active in list(self.running):
                self._look(active)
            self._fill()

    def _fill(self) -> None:
        """Start jobs while there is room and nobody has said stop."""
        while self.stop.requested is None and len(self.running) < self.launcher.capacity:
            if (found := self._next_run()) is None:
                return
            job, (_, run) = make_job(self.plan, *found), found
            self.display.started(job)
            state = (read_status(job.folder) or {}).get("state")
            if run.state == "waiting" and state in ("done", "failed") and not is_alive(job.folder):
                handle: Handle = judge(job.folder, None)  # it ended after its sweep was killed
            else:
                handle = self.launcher.start(job)
            self.running.append(Active(*found, job, handle))

    def _next_run(self) -> tuple[Point, Run] | None:
        """Return the next run, of an open point or of a new one.

        Where hopeless points are pruned, repeats wait for the verdict on their point's first run.
        """
        while True:
            for place, (point, run) in enumerate(self.waiting):
                first = point.runs[0]
                if not self.plan.options.pruner or run is first or first.state == "done":
                    return self.waiting.pop(place)
            if (new := self.record.next()) is None:
                return None
            self._open(new)

    def _open(self, point: Point) -> None:
        """Take up a point: write down its runs, then queue those that have not ended."""
        if not point.runs:
            point.runs = [self._place(point, n) for n in range(self.plan.options.repeats)]
            point.save()
        self.waiting += [(point, run) for run in point.runs if not run.is_finished]
        self._settle(point)

    def _place(self, point: Point, repeat: int) -> Run:
        """Return a new run of a point, with a folder of its own."""
        self.number += 1
        folder, seed = self.plan.place(point.params, self.number)
        name = os.path.relpath(folder, self.plan.folder)
        if name in self.folders or (folder / "status.json").exists():
            raise ConfigError(
                f"{folder} belongs to another run; put ${{hydra.job.num}} into "
                f"hydra.sweep.subdir, or {ELSEWHERE}"
            )
        self.folders.add(name)
        return Run(self.number, None if seed is None else seed + repeat, name)

    def _look(self, active: Active) -> None:
        """See how a job stands: how far it has come, whether it is hopeless, how it ended."""
        outcome = active.handle.poll()
        if outcome is None:
            if time.monotonic() - active.looked > _CURVES_EVERY:
                self._look_at_curve(active)
            return
        self.running.remove(active)
        if active.hopeless is not None and outcome.state != "done":
            outcome = replace(outcome, state="pruned", reason=active.hopeless)
        self.display.ended(active.job, outcome)
        record_end(active.job.folder, outcome, self.plan.point(active.point.params))
        active.point.save(active.run, outcome)
        self._settle(active.point)

    def _look_at_curve(self, active: Active) -> None:
        """Show a job's accuracy, and stop the first run of a point where that is hopeless."""
        active.looked = time.monotonic()
        judged = self.plan.options.pruner is not None and active.run is active.point.runs[0]
        for epoch, accuracy in accuracies(active.job.folder).items():
            self.display.moved(active.job, epoch, accuracy)
            if not judged or active.hopeless is not None:
                continue
            if self.record.is_hopeless(active.point, epoch, accuracy):
                told = f"accuracy {100 * accuracy:.2f} % after epoch {epoch} (sweep.pruner)"
                active.hopeless = told
                active.handle.stop()

    def _settle(self, point: Point) -> None:
        """Record the result of a point once all of its runs have ended.

        A search starts no further runs of a point that has failed.
        """
        lost = any(run.state in ("failed", "pruned") for run in point.runs)
        if self.plan.options.searches and lost:
            for _, run in (pair for pair in self.waiting if pair[0] is point):
                run.state = "skipped"
            self.waiting = [pair for pair in self.waiting if pair[0] is not point]
            point.save()
        if all(run.is_finished for run in point.runs):
            self.record.tell(point)


def make_job(plan: Plan, point: Point, run: Run) -> Job:
    """Return the job of a run."""
    words = plan.job_words(point.params, run.number, run.seed)
    folder = plan.folder / run.folder
    shared = {"tracking.group": "-".join(plan.folder.parts[-2:]), "device.threads": plan.threads}
    if {"WANDB_RUN_GROUP", "WANDB_GROUP"} & os.environ.keys():
        shared["tracking.group"] = None
    given = {key_of(word) for word in words}
    for key, value in shared.items():
        if value is not None and key not in given:
            words.append(f"{key}={quoted(str(value))}")
    words.append(f"hydra.run.dir={quoted(str(folder))}")
    # the command sets HYDRA_FULL_ERROR itself; a job's errors are to be one line all the same
    env = {"HYDRA_FULL_ERROR": "1" if TRACEBACK in os.environ else "0", "PYTHONFAULTHANDLER": "1"}
    env |= {name: str(plan.threads) for name in _POOLS if plan.threads is not None}
    env |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    timeout, (low, high) = plan.options.job_timeout, _GRACE
    return Job(
        run.number,
        label(plan.point(point.params), run.seed),
        folder,
        (*plan.program, *words),
        os.getcwd(),
        env,
        timeout,
        grace=min(max(timeout or high, low), high),
    )


def accuracies(folder: Path) -> dict[int, float]:
    """Return the accuracy after each epoch of a run that has been evaluated."""
    found = {}
    for row in read_rows(folder):
        value = number(row.get("accuracy/validation", row.get("accuracy/test")))
        if value is not None and isinstance(row.get("epoch"), int):
            found[row["epoch"]] = value
    return found
