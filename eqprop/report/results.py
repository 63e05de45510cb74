"""Tables of results from a record of runs: repeats together, twins by backprop beside them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from eqprop.report.evidence import Evidence
from eqprop.report.heads import Head

Measure = Literal["error", "accuracy"]
TWIN = "estimator=backprop"
BUSY, BY_TEST, MISSING = "†", "‡", "–"
_SHORTER = ("trainer.epochs=", "trainer.eval_every=", "dataset.limit=")
"""What makes a timing shorter than its experiment."""


@dataclass(frozen=True)
class Row:
    """The runs of one command that finished the same number of epochs, one a seed."""

    command: tuple[str, ...]
    runs: tuple[Evidence, ...]

    @property
    def experiment(self) -> str | None:
        """The experiment's name, if it is one's."""
        words = [word for word in self.command if word.startswith("experiment=")]
        return words[0].partition("=")[2] if words else None

    @property
    def reached(self) -> int:
        """How many epochs its runs have finished."""
        return self.runs[0].reached

    @property
    def is_twin(self) -> bool:
        """Whether backprop trained it."""
        return TWIN in self.command


@dataclass(frozen=True)
class Time:
    """The median epoch's seconds on one machine; ``busy`` if other work ran beside it."""

    seconds: float
    machine: str
    kind: str
    busy: bool


def rows_of(record: Iterable[Evidence]) -> list[Row]:
    """The rows, experiments by name, each with its plain command first and its twin next.

    Of several records of one seed the one with most epochs counts, and of equals the last: the
    record itself (`evidence.merged`) has given up what was only reported of a run as long.
    """
    chosen: dict[tuple[tuple[str, ...], int | None], Evidence] = {}
    for entry in record:
        key = entry.command, entry.seed
        if entry.kind != "timing" and entry.reached:
            earlier = chosen.get(key)
            if earlier is None or entry.reached >= earlier.reached:
                chosen[key] = entry
    found: dict[tuple[tuple[str, ...], int], list[Evidence]] = {}
    for entry in chosen.values():
        found.setdefault((entry.command, entry.reached), []).append(entry)
    rows = [Row(command, tuple(runs)) for (command, _), runs in found.items()]
    return sorted(rows, key=_place)


def twin_of(command: tuple[str, ...]) -> tuple[str, ...]:
    """The same command with backprop as its estimator."""
    plain = [word for word in command if not word.startswith("estimator")]
    at = 1 if plain and plain[0].startswith("experiment=") else 0
    return (*plain[:at], TWIN, *plain[at:])


def times_of(command: tuple[str, ...], record: Sequence[Evidence]) -> list[Time]:
    """What an epoch takes, the most trustworthy first: timings, then runs, then those made busy.

    A timing may have fewer epochs and samples: its seconds are scaled to all samples that a run of
    the experiment has, and it counts for nothing if that is not known.
    """
    found: dict[tuple[bool, bool, str], list[float]] = {}
    for entry in record:
        timing = entry.kind == "timing"
        same = whole(entry.command) == whole(command) if timing else entry.command == command
        if same and entry.seconds is not None:
            scale = _scale(entry, command, record) if timing else 1.0
            if scale is not None:
                key = not timing, entry.busy, entry.machine
                found.setdefault(key, []).append(scale * entry.seconds)
    return [
        Time(statistics.median(seconds), machine, "run" if run else "timing", busy)
        for (run, busy, machine), seconds in sorted(found.items(), key=lambda item: item[0][:2])
    ]


def ratio_of(row: Row, record: Sequence[Evidence]) -> tuple[Time, float | None] | None:
    """What an epoch takes, and over its twin's on the same machine, measured in the same way.

    There is no ratio where other work ran beside one of them.
    """
    own, twins = times_of(row.command, record), times_of(twin_of(row.command), record)
    for time in own:
        for twin in twins:
            if not time.busy and replace(twin, seconds=time.seconds) == time:
                return time, time.seconds / twin.seconds
    return (own[0], None) if own else None


def table(
    rows: Sequence[Row],
    record: Sequence[Evidence],
    heads: Mapping[str, Head],
    measure: Measure = "error",
    split: str = "test",
) -> list[str]:
    """The lines of a Markdown table; a column that would be empty is left out."""
    titles = ["command", "published", f"{split} {measure}, last epoch", "best epoch", "seeds",
              "epochs", "s an epoch", "over backprop", "machine"]  # fmt: skip
    lines, before = [], None
    for row in rows:
        lines.append(_cells(row, row.experiment != before, record, heads, measure, split))
        before = row.experiment
    shown = [i for i in range(len(titles)) if any(line[i] != MISSING for line in lines)]
    cut = [[line[i] for i in shown] for line in [titles, ["---"] * len(titles), *lines]]
    return [_line(line) for line in cut]


def not_run(rows: Sequence[Row], heads: Mapping[str, Head]) -> list[str]:
    """The lines of a Markdown table of the experiments without a run; empty if there are none."""
    known = {row.experiment for row in rows if not row.is_twin}
    missing = {name: head for name, head in heads.items() if name not in known}
    if not missing:
        return []
    lines = [
        "| command | published | run here | estimated time | its twin's | on |",
        "|---" * 6 + "|",
    ]
    for name, head in missing.items():
        time = {"total": MISSING, "epoch": MISSING, "hardware": MISSING} | head.time
        twin = time.get("twin_total", MISSING)
        whole = f"{time['total']} ({time['epoch']} an epoch)"
        cells = [f"`experiment={name}`", head.figure, "not run", whole, twin, time["hardware"]]
        lines.append(_line(cells))
    return lines


def mean_of(values: Sequence[float | None], measure: Measure = "error") -> str:
    """Mean ± standard error in per cent: of accuracies, or of what is missing to 100 %."""
    known = [100 * (1 - v if measure == "error" else v) for v in values if v is not None]
    if not known:
        return MISSING
    mean = f"{statistics.mean(known):.2f}"
    if len(known) == 1:
        return f"{mean} %"
    return f"{mean} ± {statistics.stdev(known) / math.sqrt(len(known)):.2f} %"


def _cells(
    row: Row,
    first: bool,
    record: Sequence[Evidence],
    heads: Mapping[str, Head],
    measure: Measure,
    split: str,
) -> list[str]:
    head = heads.get(row.experiment or "")
    plain = first and not row.is_twin
    asked = (head and head.epochs) or max(run.epochs or 0 for run in row.runs)
    best = mean_of([run.best for run in row.runs], measure) if split == "test" else MISSING
    if best != MISSING and any(run.by == "test" for run in row.runs):
        best += BY_TEST
    time = ratio_of(row, record)
    return [
        _command(row, first),
        head.figure if head and plain else MISSING,
        mean_of([run.last(split) for run in row.runs], measure),
        best,
        str(len(row.runs)),
        _epochs(row, asked, head),
        MISSING if time is None else f"{_seconds(time[0].seconds)}{BUSY * time[0].busy}",
        MISSING if time is None or time[1] is None else f"{time[1]:.2f}",
        _machines(row, time and time[0].machine),
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _epochs(row: Row, asked: int, head: Head | None) -> str:
    if row.reached >= asked:
        return str(row.reached)
    whole = head.time.get("total") if head and not row.is_twin else None
    return f"{row.reached} of {asked}" + (f" (all: {whole})" if whole else "")


def _command(row: Row, first: bool) -> str:
    words = row.command if first or row.experiment is None else row.command[1:]
    text = f"`{' '.join(words) or 'the default command'}`" if words or first else "the same"
    return text if first or row.experiment is None else f"… {text}"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"


def _machines(row: Row, of_seconds: str | None) -> str:
    """Where its runs were made and, if that was elsewhere, its seconds measured."""
    names = dict.fromkeys(
        run.machine if run.kind == "run" else f"{run.machine} (reported)" for run in row.runs
    )
    if of_seconds is not None and of_seconds not in {run.machine for run in row.runs}:
        names[f"{of_seconds} (seconds)"] = None
    return "; ".join(names)


def _place(row: Row) -> tuple[object, ...]:
    rest = [word for word in row.command if not word.startswith("experiment=")]
    others = [word for word in rest if word != TWIN]
    return row.experiment or "", len(others), others, row.is_twin, -row.reached


def whole(command: tuple[str, ...]) -> tuple[str, ...]:
    """The command without what only shortens it."""
    return tuple(word for word in command if not word.startswith(_SHORTER))


def _scale(timing: Evidence, command: tuple[str, ...], record: Sequence[Evidence]) -> float | None:
    """The factor from a timing's samples to those of the command, None if that is not known."""
    limited = any(word.startswith("dataset.limit=") for word in timing.command)
    if not limited:
        return 1.0
    same = [entry for entry in record if twin_of(entry.command) == twin_of(command)]
    known = [entry.samples for entry in same if entry.samples is not None]
    return max(known) / timing.samples if known and timing.samples else None
