"""Every combination of the values of a grid, each once: a recorded cell is not run again."""

from __future__ import annotations

from typing import Any

from eqprop.sweep.book import Book
from eqprop.sweep.plan import Plan
from eqprop.sweep.points import Point, Result
from eqprop.sweep.space import hash_of, plain


class Grid:
    """The cells of a plan's space in order, but for those that the book knows.

    Args:
        plan: its option ``n_trials`` ends the grid early; with ``retry`` cells that failed under an
            earlier command are run again.
        book: told here by nobody: who runs the points writes it.
    """

    searches = False

    def __init__(self, plan: Plan, book: Book) -> None:
        self.plan = plan
        self.book = book
        self.ended: str | None = None
        self._cells = plan.space.cells()
        self._plain: dict[str, str] = {}
        self._known = {str(line["cell"]): line for line in book.points.values()}
        if plan.options.retry:
            self._open_failed()

    def unfinished(self) -> list[Point]:
        """Return the cells without a result."""
        numbers = {
            str(line["cell"]): number
            for number, line in self.book.points.items()
            if line["state"] == "running"
        }
        # the book's own words are without secrets
        cells = ((self._hash(words), words) for words in self.plan.space.cells()) if numbers else ()
        return [Point(numbers[cell], words, cell) for cell, words in cells if cell in numbers]

    def next(self) -> Point | None:
        """Return the next cell that nobody has run."""
        most = self.plan.options.n_trials
        if most is not None:
            states = [line["state"] for line in self.book.points.values()]
            if sum(state in ("done", "running") for state in states) >= most:
                return None
        for words in self._cells:
            cell = self._hash(words)
            if cell not in self._known:
                self._known[cell] = {}
                return Point(self.book.next_point(), words, cell)
        return None

    def report(self, point: Point, epoch: int, accuracy: float) -> bool:
        """A grid completes every cell."""
        return False

    def tell(self, point: Point, result: Result, about: dict[str, Any]) -> None:
        """A grid does not learn."""

    def _hash(self, words: tuple[str, ...]) -> str:
        for word in words:
            if word not in self._plain:  # parsing takes longest
                (parsed,) = self.plan.composer.parse([word])
                self._plain[word] = plain(parsed)
        return hash_of([self._plain[word] for word in words])

    def _open_failed(self) -> None:
        for number, line in self.book.points.items():
            if line["state"] != "failed":
                continue
            for job in self.book.jobs_of(number):
                if job["state"] == "failed":
                    self.book.note_job(job["number"], state="interrupted", reason=None)
            self.book.note_point(number, state="running", reason=None)
