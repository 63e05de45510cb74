"""Evaluates a run's checkpoint again, and compares with what the run recorded.

    eqprop-evaluate outputs/2026-01-31/12-00-00-gaussian-mnist5k-a1b2c3
    eqprop-evaluate RUN --checkpoint best --data /data

Exits 0 if every accuracy that was recorded at that point comes out again, 1 if one does not. It
computes on a GPU if there is one, wherever the run did.

In a clone, python scripts/evaluate.py is the same command.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from eqprop.run.reading import read_rows
from eqprop.run.streams import exit_cleanly
from eqprop.run.text import number


def main() -> int:
    """Evaluate, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--checkpoint", default="last", help="last, best, or a file's name (last)")
    parser.add_argument("--data", help="the folder of the data, where it is not the run's own")
    args = parser.parse_args()
    return check(args.run, args.checkpoint, args.data)


def recorded(run: Path, step: int) -> dict[str, Any]:
    """The epoch's row that was recorded at this step; empty if the run's record has none."""
    rows = (row for row in read_rows(run) if row["step"] == step and "time/train_s" in row)
    return next(rows, {})


def check(run: Path, checkpoint: str, data: str | None) -> int:
    """Print the accuracies beside the recorded ones; 1 if one differs, else 0."""
    from eqprop.cli.build import session_of_run
    from eqprop.run.resume import newest_valid
    from eqprop.training import load, snapshot
    from eqprop.training.session import evaluate

    found = load.find(run, checkpoint)
    for broken in newest_valid(run)[1] if checkpoint == "last" else ():
        print(f"warning: {broken}; evaluating {found.path} instead", file=sys.stderr)
    session = session_of_run(found, {} if data is None else {"paths.data": data})
    snapshot.restore_weights(session.network, found)
    row, differ = recorded(run, int(found.meta["step"])), 0
    for name, split in (("validation", session.data.validation), ("test", session.data.test)):
        if split is None:
            continue
        accuracy, energy, cost = evaluate(session, split)
        before = number(row.get(f"accuracy/{name}"))
        note = "not recorded" if before is None else f"recorded {100 * before:.2f} %"
        print(f"{name:<10} {100 * accuracy:.2f} %  cost {cost:.6g}  energy {energy:.6g}  ({note})")
        differ += before is not None and before != accuracy
    return 1 if differ else 0


def run() -> NoReturn:
    """The command: exits 0, or as ``main`` says; a mistake of the user is one line."""
    exit_cleanly(main)
