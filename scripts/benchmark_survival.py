"""What it costs an epoch that nothing is lost: the same training with and without all of that.

    python scripts/benchmark_survival.py --data ../shared/data
    python scripts/benchmark_survival.py hopfield_mnist_fast --limit 6000 --epochs 9

With: every step is checked for numbers that are not finite and asks whether a signal has come,
rows go to metrics.jsonl and status.json, and each epoch ends with a checkpoint on the disk.
Without: none of it. Both train in turns, epoch by epoch, in one process; evaluation is left out.
A second one without is set against the first: what chance alone makes of such a ratio.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _timing import alternate, exit_cleanly, machine, natural, quartiles, scratch, write_json

from eqprop.config.compose import compose, validate_composed
from eqprop.run.hardware import calm_idle_threads

if TYPE_CHECKING:
    from eqprop.training.loop import Training

EXPERIMENTS = ("gaussian_mnist", "hopfield_mnist")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("experiments", nargs="*", default=EXPERIMENTS, help=f"default: {' '.join(EXPERIMENTS)}")
    add("--data", default="data", help="folder of the data files (default: data)")
    add("--epochs", type=natural, default=5, help="timed epochs of each (default: 5)")
    add("--limit", type=natural, help="use fewer training samples")
    add("--override", nargs="+", default=[], metavar="KEY=VALUE", help="more for the configuration")
    add("--json", metavar="PATH", help="write every number there")
    return parser.parse_args()


@contextlib.contextmanager
def surviving(overrides: list[str], folder: Path) -> Iterator[Training]:
    """A training whose record and checkpoints lie in ``folder``, as the command makes it."""
    cfg = compose(overrides)
    config = validate_composed(cfg)
    from eqprop.cli import build  # loads torch, which no mistake above should have to wait for
    from eqprop.run.signals import Stop

    (folder / "checkpoints").mkdir(parents=True)
    training = build.build_training(cfg, config)
    trackers = build.build_trackers(config, cfg, training)
    run = build.run_info(config, cfg, folder, None)
    build.attach_keeper(training, config, run, trackers, Stop())
    with build.recording(trackers, run, training):
        yield training


def bare(overrides: list[str]) -> Training:
    """The same training, which checks nothing and keeps nothing."""
    from eqprop.cli import build
    from eqprop.training.health import Health

    class Careless(Health):
        def begin(self, training: Training) -> None: ...

        def check(self, training: Training, estimate: Any) -> None: ...

        def check_weights(self, training: Training) -> None: ...

    cfg = compose(overrides)
    training = build.build_training(cfg, validate_composed(cfg))
    training.health = Careless()
    return training


def epoch_of(training: Training) -> Callable[[int], float]:
    """Trains an epoch as ``Training.fit`` does, without evaluating; its seconds."""
    from eqprop.training.loop import Position

    def epoch(number: int) -> float:
        training.at = Position(number)
        start = time.perf_counter()
        training.note(training.train_epoch())
        training.at = Position(number + 1)
        training.keeper.after_epoch(training, improved=True)
        return time.perf_counter() - start

    return epoch


def compare(name: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both kinds of epoch in turns; the first of each is not counted."""
    overrides = [
        *(f"experiment={name}", "tracking=none", "trainer.progress=false", "device=cpu"),
        *(f"paths.data={args.data}", f"dataset.limit={args.limit or 'null'}"),
        *(f"trainer.epochs={args.epochs + 2}", *args.override),
    ]
    seconds: dict[str, list[float]] = {"with": [], "without": [], "again": []}
    with surviving(overrides, folder / name) as training:
        turns = {"with": training, "without": bare(overrides), "again": bare(overrides)}
        epochs = {which: epoch_of(one) for which, one in turns.items()}
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


def show(results: list[dict[str, Any]]) -> None:
    from _report import console, table_of

    headings = ("experiment", "with", "without", "ratio", "quartiles", "by chance", "quartiles")
    table = table_of("An epoch: seconds, medians", headings)
    for result in results:
        times = (f"{result[which]['median']:.2f}" for which in ("with", "without"))
        ratios = [
            text
            for ratio in (result["ratio"], result["chance"])
            for text in (f"{ratio['median']:.3f}", f"{ratio['q1']:.3f}–{ratio['q3']:.3f}")
        ]
        table.add_row(result["experiment"], *times, *ratios)
    console().print(table)


def main() -> None:
    args = arguments()
    calm_idle_threads()  # as a run does
    with scratch() as folder:
        results = [compare(name, args, folder) for name in dict.fromkeys(args.experiments)]
    show(results)
    write_json(args.json, {"machine": machine(), "settings": vars(args), "results": results})


if __name__ == "__main__":
    exit_cleanly(main)
