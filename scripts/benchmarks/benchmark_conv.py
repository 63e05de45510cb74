"""What conv networks cost: training steps beside backprop's, and beside their arithmetic alone.

    python scripts/benchmarks/benchmark_conv.py --data DATA --threads 1
    python scripts/benchmarks/benchmark_conv.py pcn_lenet_mnist --epochs 3 --json conv.json

Each case is an experiment, its rival the same command with estimator=backprop, on MNIST (on mnist5k
where --data has none). All take steps in turns, in one process; times are medians with quartiles,
ratios are taken round by round. "arithmetic" are the convolutions and matrix products alone that
such a step cannot avoid: those with a factor of zero, and those done before, are left out ("done"
and "needed" count both; a convolution's two gradients are one where they are computed together).
With --epochs the experiments are also trained by the command itself, one epoch a process, in turns.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _common import Row, machine, natural, parser_for, positive, show, write_json
from _epochs import add_arguments, overrides_of

from eqprop.run.hardware import calm_idle_threads
from eqprop.run.streams import exit_cleanly

if TYPE_CHECKING:
    from _cases import Steps
    from _timing import Case, Timing

TRAIN = str(Path(__file__).resolve().parents[1] / "train.py")
EXPERIMENTS = ("pcn_lenet_mnist", "hopfield_lenet_mnist")
CASES: dict[str, tuple[str, ...]] = {
    "pcn_lenet_mnist": (),
    "pcn_lenet_mnist, centered": ("estimator=ep_centered", "dynamics.n_nudged=3"),
    "hopfield_lenet_mnist": (),
}
"""Name, which begins with the experiment's → what is said beside it."""
BACKPROP = ("estimator=backprop",)
BATCHES = 20  # that the steps are taken on in turn


def arguments() -> argparse.Namespace:
    parser = parser_for(__doc__)
    add_arguments(parser, EXPERIMENTS, epochs=0)
    parser.add_argument("--threads", type=natural, help="CPU threads (default: the processors)")
    parser.add_argument("--rounds", type=natural, default=15, help="turns of each case")
    parser.add_argument("--budget", type=positive, default=10.0, help="seconds a case")
    return parser.parse_args()


def overrides(experiment: str, args: argparse.Namespace, *more: str) -> list[str]:
    """A case's command line."""
    there = (Path(args.data) / "MNIST" / "raw").is_dir()
    data = () if there else ("dataset=mnist5k",)
    threads = f"device.threads={args.threads or 'null'}"
    return overrides_of(experiment, args, "device=cpu", threads, *data, *more)


# ---------------------------------------------------------------------- steps


def steps(args: argparse.Namespace) -> list[Row]:
    """A row for every case, and one for its rival."""
    from _timing import interleave

    cases = [case for name in CASES for case in cases_of(name, args)]
    timings = {t.case.name: t for t in interleave(cases, args.rounds, args.budget)}
    return [step_row(timing, timings) for timing in timings.values() if "of" in timing.case.labels]


def cases_of(name: str, args: argparse.Namespace) -> Iterator[Case]:
    """A case, its rival, and the arithmetic of both; none if its experiment is not wanted."""
    from _arithmetic import arithmetic
    from _timing import Case

    experiment = name.partition(",")[0]
    if experiment not in args.experiments:
        return
    rival = f"{name}, backprop"
    for who, more in ((name, CASES[name]), (rival, BACKPROP)):
        case = prepared(experiment, args, more)
        case.step()  # what is known of a batch before the first does not count
        products, alone = arithmetic(case.step)
        counts = {"products": products.done, "products_needed": len(products.needed)}
        yield Case(who, case.step, {"of": rival, "experiment": experiment, **counts})
        yield Case(f"{who}, arithmetic", alone)


def prepared(experiment: str, args: argparse.Namespace, more: Sequence[str]) -> Steps:
    """Steps on a few batches: no more data are kept than that."""
    from _cases import Steps

    few = argparse.Namespace(**{**vars(args), "limit": args.limit or 1000})
    return Steps(overrides(experiment, few, *more), BATCHES)


def step_row(timing: Timing, timings: dict[str, Timing]) -> Row:
    """Times of a case, over its rival's and over its arithmetic's."""
    name, labels = timing.case.name, timing.case.labels
    alone = timings[f"{name}, arithmetic"]
    return {
        "case": name,
        **{key: value for key, value in labels.items() if key != "of"},
        **timing.spread(),
        "vs_backprop": timing.over(timings[labels["of"]]),
        "vs_arithmetic": timing.over(alone),
        "arithmetic": alone.spread(),
    }


def show_steps(rows: Sequence[Row]) -> None:
    columns: dict[str, Callable[[Row], str]] = {
        "case": lambda row: row["case"],
        "ms": lambda row: f"{row['median_s'] * 1e3:.2f}",
        "quartiles": lambda row: f"{row['q1_s'] * 1e3:.2f}–{row['q3_s'] * 1e3:.2f}",
        "/ backprop": lambda row: f"{row['vs_backprop']['median']:.2f}",
        "/ arithmetic": lambda row: f"{row['vs_arithmetic']['median']:.2f}",
        "done": lambda row: str(row["products"]),
        "needed": lambda row: str(row["products_needed"]),
    }
    show("One training step", rows, columns)


# ---------------------------------------------------------------------- epochs


def epochs(args: argparse.Namespace) -> list[Row]:
    """Each experiment and its rival in turns, one epoch from the start each time."""
    from _timing import alternate

    rows: dict[str, list[dict[str, list[Row]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, args.epochs + 1):
            for name in args.experiments:
                entrants = {
                    who: trained(name, args, Path(folder) / f"{name}-{who}-{number}", more)
                    for who, more in (("eqprop", ()), ("backprop", BACKPROP))
                }
                rows.setdefault(name, []).append(dict(alternate(entrants, number)))
    return [epoch_row(name, found) for name, found in rows.items()]


def trained(
    name: str, args: argparse.Namespace, folder: Path, more: Sequence[str]
) -> Callable[[int], Row]:
    """What trains one epoch by the command and gives its row."""
    from _child import command

    from eqprop.run.reading import read_run

    words = overrides(name, args, "trainer.epochs=1", f"hydra.run.dir={folder}", *more)

    def run(_: int) -> Row:
        command([TRAIN, *words], 0)()
        return read_run(folder).last

    return run


def epoch_row(name: str, found: Sequence[Row]) -> Row:
    from _timing import quartiles

    out: Row = {"experiment": name, "epochs": len(found)}
    for key in ("time/train_s", "accuracy/test"):
        values = {who: [row[who][key] for row in found] for who in ("eqprop", "backprop")}
        out[key] = {who: quartiles(each) for who, each in values.items()}
    pairs = ((row["eqprop"]["time/train_s"], row["backprop"]["time/train_s"]) for row in found)
    return out | {"ratio": quartiles(ours / theirs for ours, theirs in pairs)}


def show_epochs(rows: Sequence[Row]) -> None:
    def median(key: str, who: str, digits: int) -> Callable[[Row], str]:
        return lambda row: f"{row[key][who]['median']:.{digits}f}"

    columns: dict[str, Any] = {
        "experiment": lambda row: row["experiment"],
        "eqprop": median("time/train_s", "eqprop", 2),
        "backprop": median("time/train_s", "backprop", 2),
        "ratio": lambda row: f"{row['ratio']['median']:.2f}",
        "quartiles": lambda row: f"{row['ratio']['q1']:.2f}–{row['ratio']['q3']:.2f}",
        "accuracy": median("accuracy/test", "eqprop", 4),
        "backprop's": median("accuracy/test", "backprop", 4),
    }
    show("The first epoch, by the command: seconds, medians", rows, columns)


def main() -> None:
    args = arguments()
    calm_idle_threads()  # as a run does
    report: Row = {"settings": vars(args), "steps": steps(args)}
    show_steps(report["steps"])
    report["machine"] = machine()
    if args.epochs:
        report["epochs"] = epochs(args)
        show_epochs(report["epochs"])
    write_json(args.json, report)


if __name__ == "__main__":
    exit_cleanly(main)
