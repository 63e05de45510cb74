"""The jobs of a point: one for each repeat, each with a folder, a number and a seed of its own."""

from __future__ import annotations

import secrets
from pathlib import Path

from eqprop.run.errors import ConfigError
from eqprop.sweep.book import ELSEWHERE, Book, Line
from eqprop.sweep.job import Job
from eqprop.sweep.plan import Plan
from eqprop.sweep.points import Point


class JobMaker:
    """Makes jobs by a plan, and writes each into the book before it can be started."""

    def __init__(self, plan: Plan, book: Book) -> None:
        self.plan = plan
        self.book = book
        self._taken = {str(line["folder"]) for line in book.jobs.values()}

    def write_down(self, point: Point) -> None:
        """Write a point and its jobs into the book, as far as they are not there.

        Raises:
            ConfigError: if the folder of a job is not its own.
        """
        if point.number not in self.book.points:
            words = list(point.words)
            self.book.note_point(point.number, cell=point.cell, overrides=words, state="running")
        repeats = self.plan.options.repeats
        for repeat in range(len(self.book.jobs_of(point.number)), repeats):
            number = self.book.next_number()
            folder, seed = self._place(point, number)
            self._refuse_shared(folder)
            self.book.note_job(
                number,
                point=point.number,
                repeat=repeat,
                overrides=list(point.words),
                folder=self.book.relative(folder),
                seed=None if seed is None else seed + repeat,
                state="waiting",
                objective=None,
                reason=None,
                exit_code=None,
                seconds=None,
            )

    def job(self, point: Point, line: Line) -> Job:
        """The job of a line in the book."""
        seed = line["seed"] if self.plan.options.repeats > 1 else None
        number = line["number"]
        words = self.plan.words(point.words, seed)
        words = (*words, f"hydra.job.num={number}", f"hydra.job.id={number}")
        return Job(number, words, self.book.path_of(line), label(line, self.plan.options.repeats))

    def _place(self, point: Point, number: int) -> tuple[Path, int | None]:
        """The folder of a job, and the seed of its point's first run."""
        try:
            cfg = self.plan.compose(point.words)
            return self.plan.place(cfg, number), int(cfg.seed)
        except (ConfigError, ValueError, TypeError):
            # values that go wrong together only here: the job itself says so, and fails alone
            return self.plan.folder / f"{number}-run-{secrets.token_hex(3)}", None

    def _refuse_shared(self, folder: Path) -> None:
        name = self.book.relative(folder)
        if (folder / "status.json").exists() and name not in self._taken:
            raise ConfigError(f"{folder} holds the record of another run; {ELSEWHERE}")
        if name in self._taken:
            raise ConfigError(
                f"hydra.sweep.subdir: two jobs would share the folder {folder}; put "
                "${hydra.job.num} into it"
            )
        self._taken.add(name)


def label(line: Line, repeats: int) -> str:
    """What tells a job from the others of its sweep, in few words."""
    words = [_shortened(word) for word in line["overrides"]]
    if repeats > 1:
        words.append(f"seed={line['seed']}")
    return " ".join(words)


def _shortened(word: str) -> str:
    key, _, value = word.partition("=")
    try:
        return f"{key}={float(value):.4g}" if "." in value else word
    except ValueError:
        return word
