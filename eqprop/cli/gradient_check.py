"""Is this gradient right, and by how much not? Compares estimators with a reference.

    eqprop-gradient-check model=hopfield
    eqprop-gradient-check RUN=outputs/2026-01-31/12-00-00-hopfield-mnist5k-a1b2c3 --figure check.png
    eqprop-gradient-check device.dtype=float64 --estimators ep,ep_centered --min-cosine 0.99

The overrides are those of eqprop-train; RUN=FOLDER takes the weights and the settings of a run, and
overrides on top. Prints, for each parameter, cosine, ratio of norms, share of equal signs and
relative error, sweeps over the strength of the nudge and over the steps of nudged phases, and what
limits the gradient. Exits 1 if a threshold is missed. Nothing is trained, no run is left.

In a clone, python scripts/gradient_check.py is the same command.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any, NoReturn

from eqprop.run.errors import ConfigError, RunError, UserError
from eqprop.run.files import write_atomically
from eqprop.run.streams import exit_cleanly
from eqprop.run.text import key_of

RUN = "RUN"


class Parser(argparse.ArgumentParser):
    """One whose complaints are one line, as all others are."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def numbers(convert: Callable[[str], Any], allowed: str, valid: Callable[[Any], bool]) -> Any:
    """What reads a comma-separated list, for argparse."""

    def read(text: str) -> list[Any]:
        with suppress(ValueError):
            found = [convert(part) for part in text.split(",")]
            if all(map(valid, found)):
                return found
        raise argparse.ArgumentTypeError(f"{text!r} is not {allowed}")

    return read


def finite(text: str) -> float:
    """The number that ``text`` is, for argparse."""
    with suppress(ValueError):
        if math.isfinite(float(text)):
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        usage="%(prog)s [RUN=FOLDER] [OVERRIDE …] [options]",
    )
    add = parser.add_argument
    counts = numbers(int, "a list of whole numbers >= 1", lambda n: n >= 1)
    add(
        "words", nargs="*", metavar="OVERRIDE", help="group=option or key=value, as of eqprop-train"
    )
    add("--estimators", default="", metavar="A,B",
        help="options of the group estimator (the configured one)")  # fmt: skip
    add("--reference", default="implicit", metavar="A", help="another option of it (implicit)")
    add("--batches", default=[3], type=counts, metavar="N", help="training batches (3)")
    add("--betas", metavar="B,C",
        type=numbers(float, "a list of finite numbers other than 0", lambda b: 0 < abs(b) < 1e300),
        help="strengths of the sweep (11, halved from twice the configured one)")  # fmt: skip
    add(
        "--steps",
        type=counts,
        metavar="N,M",
        help="steps of the sweep: of nudged phases, or the estimator's own (1, 2, 4, …)",
    )
    add("--checkpoint", default="last", help="of RUN: last, best, or a file's name (last)")
    add("--min-cosine", type=finite, metavar="X", help="exit 1 if a cosine is below X")
    add(
        "--max-error",
        type=finite,
        metavar="X",
        help="exit 1 if a relative error is above X",
    )
    add("--json", metavar="FILE", help="write all numbers; - is standard output, instead of tables")
    add("--figure", metavar="FILE", help="write error against β and steps, .png, .svg or .pdf")
    add("--config-dir", metavar="DIR", help="options of your own, as of eqprop-train")
    args = parser.parse_intermixed_args()
    args.run = [word.partition("=")[2] for word in args.words if key_of(word) == RUN]
    args.words = [word for word in args.words if key_of(word) != RUN]
    if len(args.run) > 1 or len(args.batches) > 1:
        raise ConfigError("RUN and --batches are given once, with one value")
    return args


def request_of(args: argparse.Namespace) -> Any:
    """The options as what the comparison takes."""
    from eqprop.cli.gradient_comparison import (
        Request,
    )  # loads torch, which --help need not wait for

    return Request(
        words=args.words,
        flags=[f"--config-dir={args.config_dir}"] if args.config_dir else [],
        run=args.run[0] if args.run else None,
        checkpoint=args.checkpoint,
        estimators=[name for name in args.estimators.split(",") if name],
        reference=args.reference,
        batches=args.batches[0],
        betas=args.betas,
        steps=args.steps,
    )


def show(report: Any) -> None:
    """Print the tables and the sentences of a report."""
    from rich.console import Console

    from eqprop.report import gradients

    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.width = max(console.width, 100)
    console.print(gradients.heading(report))
    console.print(gradients.parameters(report))
    found = report["estimators"].values()
    for which, head in (("beta_sweep", "beta"), ("step_sweep", "steps")):
        if any(one[which] for one in found):
            console.print(gradients.sweep(report, which, head))
    for line in gradients.sentences(report):
        console.print(line)


def missed(report: Any, min_cosine: float | None, max_error: float | None) -> list[str]:
    """Each parameter that misses a threshold; one of which both gradients are zero misses none."""
    found = []
    for name, one in report["estimators"].items():
        for parameter, of in one["parameters"].items():
            if of["note"] == "both are zero":
                continue
            cosine, error = of["cosine"], of["relative_error"]
            where = f"of {parameter} by {name}"
            told = f", {of['note']}" if of["note"] else ""
            if min_cosine is not None and (cosine is None or cosine < min_cosine):
                number = "undefined" if cosine is None else f"{cosine:.6g}"
                found.append(f"the cosine {where} is {number}, not {min_cosine:g}{told}")
            if max_error is not None and (error is None or error > max_error):
                number = "undefined" if error is None else f"{error:.6g}"
                found.append(f"the error {where} is {number}, not {max_error:g}{told}")
    return found


def write(report: Any, path: str) -> None:
    """Write all numbers as JSON; - is standard output. Raises UserError if that fails."""
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if path == "-":
        sys.stdout.write(text)
        return
    try:
        write_atomically(Path(path), text.encode())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def main() -> None:
    """Compare, print and write. Raises RunError if a threshold is missed."""
    args = arguments()
    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING)
    from eqprop.cli.gradient_comparison import gradient_check

    report = gradient_check(request_of(args))
    if args.json != "-":
        show(report)
    if args.json is not None:
        write(report, args.json)
    if args.figure is not None:
        from eqprop.report.gradients import draw

        with redirect_stdout(sys.stderr if args.json == "-" else sys.stdout):
            draw(report, args.figure)
    if misses := missed(report, args.min_cosine, args.max_error):
        more = f" (and {len(misses) - 1} more)" if len(misses) > 1 else ""
        raise RunError(misses[0] + more)


def run() -> NoReturn:
    """The command: exits 0, or as ``main`` says; a mistake of the user is one line."""
    exit_cleanly(main)
