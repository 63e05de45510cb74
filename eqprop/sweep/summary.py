"""What a sweep has come to: its best point, its failures, and the exit status that follows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from eqprop.sweep.book import Book, Line
from eqprop.sweep.closing import exit_status, failure_lines
from eqprop.sweep.job import Job, Outcome
from eqprop.sweep.jobs import label
from eqprop.sweep.progress import short


@dataclass(frozen=True)
class Summary:
    """The end of a sweep, over all commands that worked on it.

    Attributes:
        objective: of the best point; None where none is done.
        overrides: of the best point.
        lines: what a person is told.
        exit_code: 0, or 1 where something failed.
    """

    objective: float | None
    overrides: list[str]
    lines: list[str] = field(repr=False)
    exit_code: int = 0


def summarize(book: Book, repeats: int, ended: str | None = None) -> Summary:
    """Sum up what the book says; ``ended`` is why there are no more points, if not all are done."""
    outcomes = [_outcome(book, line, repeats) for line in book.jobs.values()]
    lines = failure_lines(o for o in outcomes if o is not None)
    best = max(
        (line for line in book.points.values() if line["state"] == "done"),
        key=lambda line: float(line["mean"]),
        default=None,
    )
    if best is not None:
        lines.append(_best(book, best))
    if ended is not None:
        lines.append(ended)
    lines.append(f"{_counted(book)}  {short(book.folder)}")
    code = exit_status(o for o in outcomes if o is not None)
    objective = None if best is None else float(best["mean"])
    return Summary(objective, [] if best is None else best["overrides"], lines, code)


def _outcome(book: Book, line: Line, repeats: int) -> Outcome | None:
    if line["state"] not in ("done", "failed", "pruned"):
        return None
    job = Job(line["number"], (), book.path_of(line), label(line, repeats))
    seconds = float(line["seconds"] or 0)
    return Outcome(
        job, line["state"], line["objective"], line["reason"], line["exit_code"], seconds
    )


def _best(book: Book, point: Line) -> str:
    jobs = book.jobs_of(point["point"])
    error = point["standard_error"]
    around = "" if error is None else f" ± {error:.4f} ({point['n']} runs)"
    words = " ".join(point["overrides"]) or "the only point"
    return f"best {point['mean']:.4f}{around}: {words}  {short(book.path_of(jobs[0]))}"


def _counted(book: Book) -> str:
    counts = Counter(line["state"] for line in book.points.values())
    jobs = Counter(line["state"] for line in book.jobs.values())
    names = ("done", "failed", "pruned", "running")
    told = {"running": "unfinished"}
    points = ", ".join(
        f"{counts[name]} {told.get(name, name)}" for name in names if counts[name] or name == "done"
    )
    if len(book.jobs) == len(book.points):
        return points
    return f"{points} of {len(book.points)} points ({jobs['done']} of {len(book.jobs)} runs done)"
