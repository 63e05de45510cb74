"""Results as a Markdown table: one row for all runs that differ only in the seed.

    python scripts/results_table.py outputs/multirun/2026-01-31/12-00-00
    python scripts/results_table.py outputs/2026-01-31 --measure error

Each number is of the test set after the last epoch, as mean ± standard error over the seeds; "best"
is the best epoch of each run, which the test set itself has chosen. Seconds are the median epoch's,
without evaluation. The last column divides them by those of the same command with
estimator=backprop, where such a run is there. What a paper has published comes from the head of the
experiment's file.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eqprop.report.runs import find_runs
from eqprop.run.reading import Run
from eqprop.run.streams import exit_cleanly
from eqprop.run.text import number

CONF = Path(__file__).resolve().parents[1] / "conf"
ASIDE = ("seed", "paths.", "tracking", "hydra.", "device", "name", "resume", "checkpoint")
HEADS = ("command", "seeds", "epochs", "last", "best", "published", "s an epoch", "over backprop")


@dataclass
class Row:
    """The runs of one command."""

    words: tuple[str, ...]
    runs: list[Run] = field(default_factory=list)

    @property
    def seconds(self) -> float | None:
        """The median epoch's, without evaluation."""
        times = [
            value
            for run in self.runs
            for row in run.metrics.get("time/train_s", [])
            if (value := number(row["time/train_s"])) is not None
        ]
        return statistics.median(times) if times else None


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """Runs by what they were called with, in the order in which they are found."""
    found: dict[tuple[str, ...], Row] = {}
    for run in runs:
        words = tuple(word for word in run.overrides if not word.lstrip("+").startswith(ASIDE))
        found.setdefault(words, Row(words)).runs.append(run)
    return list(found.values())


def twin_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """The same command with backprop as its estimator."""
    plain = {word for word in row.words if not word.startswith("estimator")}
    for other in rows:
        own = set(other.words)
        if "estimator=backprop" in own and own - {"estimator=backprop"} == plain:
            return other
    return None


def mean_of(values: Sequence[float | None], error: bool) -> str:
    """Mean ± standard error, in per cent: of accuracies, or of what is missing to 100 %."""
    known = [100 * (1 - v if error else v) for v in values if v is not None]
    if not known:
        return "–"
    mean = f"{statistics.mean(known):.2f}"
    if len(known) == 1:
        return f"{mean} %"
    return f"{mean} ± {statistics.stdev(known) / math.sqrt(len(known)):.2f} %"


def published(words: Sequence[str]) -> str:
    """What the head of the experiment's file says of the paper's figure."""
    name = next((w.partition("=")[2] for w in words if w.startswith("experiment=")), None)
    file = CONF / "experiment" / f"{name}.yaml"
    if name is None or not file.is_file() or "estimator=backprop" in words:
        return "–"
    found = re.search(r"^# Published: (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1].rstrip(".") if found else "–"


def cells(row: Row, rows: Sequence[Row], split: str, error: bool) -> list[str]:
    name = f"accuracy/{split}"
    twin, seconds = twin_of(row, rows), row.seconds
    base = None if twin is None else twin.seconds
    ratio = "–" if seconds is None or not base else f"{seconds / base:.2f}"
    return [
        f"`{' '.join(row.words) or 'the default command'}`",
        str(len(row.runs)),
        str(max(run.epochs for run in row.runs)),
        mean_of([run.last.get(name) for run in row.runs], error),
        mean_of([run.best(name) for run in row.runs], error),
        published(row.words),
        "–" if seconds is None else f"{seconds:.3g}",
        ratio,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folders", nargs="+", type=Path, metavar="FOLDER", help="a run's folder, or one above some")
    add("--measure", choices=("accuracy", "error"), default="accuracy", help="what is shown (%%)")
    add("--split", choices=("test", "validation", "train"), default="test", help="of which data")
    args = parser.parse_args()
    rows = rows_of([run for folder in args.folders for run in find_runs(folder)])
    heads = [h if h not in ("last", "best") else f"{args.split} {args.measure}, {h}" for h in HEADS]
    lines = [cells(row, rows, args.split, args.measure == "error") for row in rows]
    shown = [i for i, head in enumerate(heads) if any(line[i] != "–" for line in lines)]
    for line in [heads, ["---"] * len(heads), *lines]:
        print("| " + " | ".join(line[i] for i in shown) + " |")


if __name__ == "__main__":
    exit_cleanly(main)
