"""Results as Markdown: one row for all runs that differ only in the seed, the twin beside it.

    python scripts/results_table.py outputs/multirun/2026-01-31/12-00-00
    python scripts/results_table.py outputs/2026-01-31 --measure error
    python scripts/results_table.py RUNS --record docs/results.json --page docs/results.md
    python scripts/results_table.py RUNS --timing SHORT_RUNS --record docs/results.json

Without --page a table is printed: each number is of the last epoch, as mean ± standard error over
the seeds. "Best epoch" is the test set's number where validation was best or, with nothing held
back (‡), where the test set itself was. Seconds are the median epoch's, without evaluation and the
first; the column beside it divides them by those of the same command with estimator=backprop on
the same machine.

--record keeps what counts of the runs in a small file, so that their folders may go, and adds those
that are there already: of two records of one command, seed and machine the one with more epochs
stays, and of equals the new one.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from eqprop.report import evidence, results_page
from eqprop.report.evidence import SPLITS, Evidence, Kind, evidence_of
from eqprop.report.heads import Head, heads
from eqprop.report.results import rows_of, table
from eqprop.report.runs import find_runs
from eqprop.run.errors import UserError
from eqprop.run.files import write_atomically
from eqprop.run.streams import exit_cleanly
from eqprop.run.text import one_line

CONF = Path(__file__).resolve().parents[1] / "conf"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folders", nargs="*", type=Path, metavar="FOLDER", help="a run's folder, or one above some")
    add("--timing", nargs="+", type=Path, default=[], metavar="FOLDER",
        help="short runs of the same commands on a quiet machine, for their seconds")  # fmt: skip
    add("--busy", action="store_true",
        help="other work ran beside the FOLDERs' runs: their seconds are marked")  # fmt: skip
    add("--record", type=Path, metavar="FILE.json", help="read the record and add the runs to it")
    add("--page", type=Path, metavar="FILE.md", help="write the page, and its figure as FILE.png")
    add("--measure", choices=("accuracy", "error"), default="accuracy",
        help="what the printed table shows (%%)")  # fmt: skip
    add("--split", choices=SPLITS, default="test", help="of which data the printed table is")
    args = parser.parse_args()
    if not (args.folders or args.timing or args.record):
        parser.error("name a FOLDER with runs, or a --record")
    if args.page and not args.record:
        parser.error("--page is made from a --record: name both")
    return args


def read(folders: Sequence[Path], kind: Kind, busy: bool = False) -> list[Evidence]:
    """Of the runs in the folders those that have finished an epoch."""
    found = [evidence_of(run, kind, busy) for folder in folders for run in find_runs(folder)]
    # a timing may have been stopped before it was evaluated
    known = [e for e in found if e.reached or (kind == "timing" and e.seconds is not None)]
    if known != found:
        print(f"left out, no epoch finished: {len(found) - len(known)} runs", file=sys.stderr)
    return known


def write_page(
    path: Path, record_file: Path, record: Sequence[Evidence], known: dict[str, Head]
) -> None:
    """The page, and beside it the figure, where there is a curve to draw."""
    figure = path.with_suffix(".png")
    drawn = results_page.draw(record, known, str(figure))
    files = {"record": record_file, "page": path}
    names = {key: shlex.quote(os.path.relpath(file)) for key, file in files.items()}
    names["name"] = os.path.relpath(record_file, path.parent)
    text = results_page.page(record, known, names, figure.name if drawn else None)
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise UserError(f"cannot write {one_line(path)}: {error.strerror or error}") from error
    print(f"wrote {one_line(path)}")


def main() -> None:
    args = arguments()
    new = read(args.folders, "run", args.busy) + read(args.timing, "timing")
    record = evidence.merged(evidence.load(args.record) if args.record else [], new)
    known = heads(CONF / "experiment")
    if args.record:
        evidence.save(args.record, record)
        print(f"wrote {one_line(args.record)} ({len(record)} runs)")
    if args.page:
        write_page(args.page, args.record, record, known)
    if not (args.record or args.page):
        print("\n".join(table(rows_of(record), record, known, args.measure, args.split)))


if __name__ == "__main__":
    exit_cleanly(main)
