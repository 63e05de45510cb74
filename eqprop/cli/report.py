"""One page on a run or a sweep: what ran, how it went, what failed; failures as a PNG beside it.

    eqprop-report outputs/multirun/2026-01-31/12-00-00
    eqprop-report outputs --output /tmp/all.html

FOLDER is a run's folder, or one with runs anywhere below it, in whatever state. The page holds all
that it needs: it opens without a network, and can be sent by mail.

In a clone, python scripts/report.py is the same command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import NoReturn

from eqprop.report.figure import INK, pyplot, save
from eqprop.report.page import render
from eqprop.report.runs import find_runs, own_overrides
from eqprop.run.errors import UserError
from eqprop.run.files import write_atomically
from eqprop.run.reading import Run
from eqprop.run.streams import exit_cleanly
from eqprop.run.text import one_line

FAILURES = 40  # on the figure


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="a run's folder, or one with runs below it")
    add("--output", type=Path, metavar="PATH",
        help="the page to write, or a folder for index.html (default: FOLDER/report)")  # fmt: skip
    add("--no-png", action="store_true", help="the page only, no failures.png")
    return parser.parse_args()


def page_of(folder: Path, output: Path | None) -> Path:
    """Where the page goes."""
    if output is None:
        output = folder / "report"
    is_page = output.suffix.lower() in (".html", ".htm") and not output.is_dir()
    return output if is_page else output / "index.html"


def draw_failures(runs: Sequence[Run], page: Path) -> None:
    """Write failures.png beside the page: which runs failed, with what, and why; the first of many.

    Raises:
        UserError: if matplotlib is missing or the file cannot be written.
    """
    failed = [(run, own) for run, own in zip(runs, own_overrides(runs), strict=True) if run.failure]
    if not failed:
        return
    lines = []
    for run, own in failed[:FAILURES]:
        heads = f"{run.state}  {run.folder.name}  {own}", run.failure
        lines += [*(fill(one_line(head, 300), 120) for head in heads), ""]
    if len(failed) > FAILURES:
        lines.append(f"and {len(failed) - FAILURES} more")
    text = "\n".join(lines).replace("$", r"\$")  # matplotlib finds no formula in it
    plt = pyplot()
    height = 0.175 * text.count("\n") + 0.6
    figure = plt.figure(figsize=(9, height))
    title = f"What failed ({len(failed)} of {len(runs)})"
    figure.text(0.02, 1 - 0.1 / height, title, va="top", weight="bold")
    figure.text(0.02, 1 - 0.45 / height, text, va="top", color=INK, size=9, linespacing=1.3)
    stem = "" if page.stem == "index" else f"{page.stem}-"
    save(figure, str(page.with_name(f"{stem}failures.png")))
    plt.close(figure)


def main() -> None:
    """Write the page, and the figure of what failed."""
    args = arguments()
    runs = find_runs(args.folder)
    page = page_of(args.folder, args.output)
    made = render(args.folder, runs, page)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(page, made)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write {one_line(page)}: {reason}; choose another place by --output"
        ) from error
    print(f"wrote {one_line(page)} ({len(runs)} run{'s' * (len(runs) != 1)})")
    if not args.no_png:
        try:
            draw_failures(runs, page)
        except UserError as error:
            print(f"no figure: {error}", file=sys.stderr)


def run() -> NoReturn:
    """The command: exits 0, or as ``main`` says; a mistake of the user is one line."""
    exit_cleanly(main)
