"""What it costs an epoch that nothing is lost: the same training with and without all of that.

    python scripts/benchmarks/benchmark_survival.py --data DATA
    python scripts/benchmarks/benchmark_survival.py hopfield_mnist_fast --limit 6000 --epochs 9

With: every step is checked for numbers that are not finite and asks whether a signal has come,
rows go to metrics.jsonl and status.json, and each epoch ends with a checkpoint on the disk.
Without: none of it. Both train in turns, epoch by epoch, in one process; evaluation is left out.
A second one without is set against the first: what chance alone makes of such a ratio.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _common import Row, machine, parser_for, session_of, show, write_json
from _epochs import add_arguments, overrides_of, recorded, scratch
from _timing import alternate, quartiles

from eqprop.run.hardware import calm_idle_threads
from eqprop.run.streams import exit_cleanly

if TYPE_CHECKING:
    from eqprop.training.loop import Training

EXPERIMENTS = ("gaussian_mnist", "hopfield_mnist")


def epoch_of(training: Training) -> Callable[[int], float]:
    """Trains an epoch without evaluating, its end told to all callbacks; its seconds."""
    from eqprop.training.session import Position

    session = training.session

    def epoch(number: int) -> float:
        session.at = Position(number)
        start = time.perf_counter()
        row = training.train_epoch()
        session.at = Position(number + 1)
        training.record(row)
        for callback in training.callbacks:
            callback.on_epoch(session, row, improved=True)
            callback.on_recorded(session, row, improved=True)
        return time.perf_counter() - start

    return epoch


def compare(name: str, args: argparse.Namespace, folder: Path) -> Row:
    """Both kinds of epoch in turns; the first of each is not counted."""
    more = "device=cpu", f"trainer.epochs={args.epochs + 2}"
    overrides = overrides_of(name, args, *more)
    seconds: dict[str, list[float]] = {"with": [], "without": [], "again": []}
    with recorded(overrides, folder / name) as (training, config):
        from eqprop.training.loop import Training

        every = config.trainer.log_every
        bare = [Training(session_of(overrides), log_every=every) for _ in range(2)]
        trainings = zip(seconds, (training, *bare), strict=True)
        epochs = {which: epoch_of(one) for which, one in trainings}
        for number in range(1, args.epochs + 2):
            for which, taken in alternate(epochs, number):
                if number > 1:
                    seconds[which].append(taken)
    ratios = {
        kind: quartiles([a / b for a, b in zip(seconds[which], seconds["without"], strict=True)])
        for kind, which in (("ratio", "with"), ("chance", "again"))
    }
    spreads = {which: quartiles(values) for which, values in seconds.items()}
    return {"experiment": name, "epochs": args.epochs, **spreads, **ratios}


def show_results(results: list[Row]) -> None:
    def median(key: str, digits: int = 2) -> Callable[[Row], str]:
        return lambda row: f"{row[key]['median']:.{digits}f}"

    def spread(key: str) -> Callable[[Row], str]:
        return lambda row: f"{row[key]['q1']:.3f}–{row[key]['q3']:.3f}"

    columns: dict[str, Any] = {
        "experiment": lambda row: row["experiment"],
        "with": median("with"),
        "without": median("without"),
        "ratio": median("ratio", 3),
        "quartiles": spread("ratio"),
        "by chance": median("chance", 3),
        "its quartiles": spread("chance"),
    }
    show("An epoch: seconds, medians", results, columns)


def main() -> None:
    parser = parser_for(__doc__)
    add_arguments(parser, EXPERIMENTS)
    args = parser.parse_args()
    calm_idle_threads()  # as a run does
    with scratch() as folder:
        results = [compare(name, args, folder) for name in dict.fromkeys(args.experiments)]
    show_results(results)
    write_json(args.json, {"machine": machine(), "settings": vars(args), "results": results})


if __name__ == "__main__":
    exit_cleanly(main)
