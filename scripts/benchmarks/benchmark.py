"""What a training step of equilibrium propagation costs, beside backprop and beside its floor.

    python scripts/benchmarks/benchmark.py --quick
    python scripts/benchmarks/benchmark.py --json outputs/benchmark.json --plot docs/benchmark.png
    python scripts/benchmarks/benchmark.py --batch 500 --width 2000 4000 --steps --sections step

The first value of each axis is the base; one axis varies at a time (all together with --grid).
All cases of a point are timed in turns, in one process; times are medians with quartiles, ratios
are taken round by round. Parts, chosen by --sections:

    step        every model and solver, backprop with fused Adam, the generic autograd path, the
                energy as published scripts relax it (backward through everything, weights too),
                and the floor: the matrix products that the step cannot avoid, alone
    evaluation  samples/s of the free phase
    memory      peak of a process of its own, for few and for many relaxation steps
    first_step  the first step beside later ones, with and without what compiles or captures
    startup     --help, a configuration error, and what imports cost
    run         the default command from start to finish
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from _common import console, machine, natural, parser_for, positive, write_json

from eqprop.run.hardware import calm_idle_threads
from eqprop.run.streams import exit_cleanly

if TYPE_CHECKING:
    from _cases import Point

SECTIONS = ("step", "evaluation", "memory", "first_step", "startup", "run")
QUICK: dict[str, Any] = {
    "batch": [20],
    "width": [64],
    "depth": [1],
    "steps": [],
    "rounds": 3,
    "budget": 1.0,
    "sections": list(SECTIONS[:-1]),
    "samples": 200,
}
FULL: dict[str, Any] = {
    "batch": [100, 20, 500, 2000],
    "width": [1000, 500, 2000, 4000],
    "depth": [1, 2, 3, 4, 5],
    "steps": [10, 20, 50, 100],
    "rounds": 15,
    "budget": 10.0,
    "sections": list(SECTIONS),
    "samples": 10_000,
}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; what was left out comes from FULL, or from QUICK with --quick."""
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--batch", type=natural, nargs="+", help="samples of a step")
    add("--width", type=natural, nargs="+", help="units of each hidden layer")
    add("--depth", type=natural, nargs="+", help="hidden layers")
    add("--steps", type=natural, nargs="*", help="steps a phase, beside each solver's own number")
    add("--grid", action="store_true", help="all combinations instead of one axis at a time")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--dtype", choices=("float32", "float64", "bfloat16"), default="float32")
    add("--threads", type=natural, help="CPU threads (default: the processors there are)")
    add("--activation", default="sigmoid", help="of the hidden and output layers")
    add("--cases", nargs="+", metavar="WORD", help="only EP cases with one of these words")
    add("--override", nargs="+", default=[], metavar="KEY=VALUE", help="more for every EP case")
    add("--rounds", type=natural, help="turns of each case")
    add("--budget", type=positive, help="seconds a case and point; a slow one gets fewer turns")
    add("--samples", type=natural, help="samples of the evaluation")
    add("--sections", nargs="+", choices=SECTIONS, help="what to measure")
    add("--quick", action="store_true", help="tiny sizes, a few rounds: does it work?")
    add("--json", metavar="PATH", help="write every number there")
    add("--plot", metavar="PATH", help="draw the step's ratio to backprop there")
    args = parser.parse_args(argv)
    for name, value in (QUICK if args.quick else FULL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.plot and "step" not in args.sections:
        parser.error("--plot shows the section 'step': add it to --sections")
    return args


def points_of(args: argparse.Namespace) -> list[Point]:
    """The base, then every point that is asked for, none twice."""
    from _cases import Point

    lists = [args.batch, args.width, args.depth, [None, *args.steps]]
    if args.grid:
        return [Point(*values) for values in itertools.product(*lists)]
    base = [values[0] for values in lists]
    varied = [[*base[:i], v, *base[i + 1 :]] for i, values in enumerate(lists) for v in values]
    return list(dict.fromkeys(Point(*values) for values in [base, *varied]))


def main() -> None:
    args = arguments()
    calm_idle_threads()  # as a run does
    if args.plot:
        from eqprop.report.figure import pyplot

        pyplot()  # now, rather than after measuring
    from _sections import Bench
    from _step_report import plot

    bench = Bench(args, points_of(args))
    report: dict[str, Any] = {"machine": machine(), "settings": vars(args)}
    report["points"] = [asdict(point) for point in bench.points]
    for section in args.sections:
        report[section] = getattr(bench, section)()
    report["skipped"], report["checks"] = bench.skipped, bench.checks
    for case, reason in bench.skipped.items():
        console().print(f"left out: {case}: {reason}")
    write_json(args.json, report)
    if args.plot:
        plot(report["step"], args.plot)


if __name__ == "__main__":
    exit_cleanly(main)
