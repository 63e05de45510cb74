"""One page on a run or a sweep: what ran, how it went, what failed; figures as PNGs beside it.

    python scripts/report.py outputs/multirun/2026-01-31/12-00-00
    python scripts/report.py outputs --output /tmp/all.html

FOLDER is a run's folder, or one with runs anywhere below it, in whatever state. The page holds all
that it needs: it opens without a network, and can be sent by mail.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from _report_figures import draw_all
from _timing import exit_cleanly

from eqprop.report.finding import find_runs
from eqprop.report.page import render
from eqprop.report.payload import payload
from eqprop.report.tolerant import readable
from eqprop.run.errors import UserError
from eqprop.run.files import write_atomically


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="a run's folder, or one with runs below it")
    add("--output", type=Path, metavar="PATH",
        help="the page to write, or a folder for index.html (default: FOLDER/report)")  # fmt: skip
    add("--no-png", action="store_true", help="the page only, no figures")
    return parser.parse_args()


def page_of(folder: Path, output: Path | None) -> Path:
    """Where the page goes."""
    if output is None:
        output = folder / "report"
    is_page = output.suffix.lower() in (".html", ".htm") and not output.is_dir()
    return output if is_page else output / "index.html"


def main() -> None:
    args = arguments()
    runs, problems = find_runs(args.folder)
    page = page_of(args.folder, args.output)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(page, render(payload(args.folder, runs, problems, page)))
    except OSError as error:
        where = readable(str(page))
        raise UserError(
            f"cannot write {where}: {error.strerror or error}; choose another place by --output"
        ) from error
    print(f"wrote {readable(str(page))} ({len(runs)} run{'s' * (len(runs) != 1)})")
    if args.no_png:
        return
    try:
        draw_all(runs, page)
    except UserError as error:
        print(f"no figures: {error}", file=sys.stderr)


if __name__ == "__main__":
    exit_cleanly(main)
