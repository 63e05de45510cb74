"""What differs between runs, side by side: their configuration keys and their results.

    eqprop-compare outputs/2026-01-31/12-00-00-a outputs/2026-01-31/12-05-00-b
    eqprop-compare outputs/multirun/2026-01-31/12-00-00/* | less -S

A key that a run does not have is shown as –. Where the table is wider than the terminal, it goes on
below.

In a clone, python scripts/compare.py is the same command.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import NoReturn

from eqprop.report.compare import compare, heads_of, lines_of, read
from eqprop.run.streams import exit_cleanly


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder; two or more of them")
    add("--all", action="store_true", help="also what is the same in all of them")
    args = parser.parse_args()
    rows = compare(read(args.runs), args.all)
    if not rows:
        print("nothing differs: configurations and results are the same")
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in lines_of(heads_of(args.runs), rows, width):
        print(line)


def run() -> NoReturn:
    """The command: exits 0, or as ``main`` says; a mistake of the user is one line."""
    exit_cleanly(main)
