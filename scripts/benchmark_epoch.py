"""What an epoch costs as users run it, beside a plain backprop loop over the same tensors.

    python scripts/benchmark_epoch.py --data ../shared/data
    python scripts/benchmark_epoch.py hopfield_mnist --limit 5000 --epochs 3 --json epoch.json
    python scripts/benchmark_epoch.py gaussian_mnist --override dataset=digits

Each experiment is assembled from its configuration, with its metrics file and log in a temporary
folder; its rival has the same sizes, activation, cost, batch size and learning rate, and fused
Adam. All train in turns, epoch by epoch, in one process. Medians, and ratios pair by pair.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _timing import alternate, exit_cleanly, machine, natural, quartiles, scratch, write_json

from eqprop.config.compose import compose, conf_dir, validate_composed
from eqprop.run.hardware import calm_idle_threads

if TYPE_CHECKING:
    from eqprop.training.loop import Training

EXPERIMENTS = ("gaussian_mnist", "hopfield_mnist", "gaussian_mnist_fast", "hopfield_mnist_fast")
Row = dict[str, float]


@dataclass
class Contest:
    """One experiment and its rival; each callable trains one epoch, evaluates, and gives a row."""

    name: str
    entrants: dict[str, Callable[[int], Row]]
    rows: dict[str, list[Row]] = field(default_factory=lambda: {"eqprop": [], "backprop": []})

    def result(self) -> dict[str, Any]:
        """Quartiles of both and of their ratios, and the last epoch's accuracies."""
        out: dict[str, Any] = {"experiment": self.name, "epochs": len(self.rows["eqprop"])}
        for key in ("train_s", "eval_s"):
            times = {who: [row[key] for row in rows] for who, rows in self.rows.items()}
            pairs = zip(times["eqprop"], times["backprop"], strict=True)
            out[key] = {who: quartiles(values) for who, values in times.items()}
            out[key]["ratio"] = quartiles(ours / theirs for ours, theirs in pairs)
        out["accuracy"] = {who: rows[-1]["accuracy"] for who, rows in self.rows.items()}
        return out


def arguments() -> argparse.Namespace:
    there = [name for name in EXPERIMENTS if (conf_dir() / "experiment" / f"{name}.yaml").is_file()]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("experiments", nargs="*", default=there, help=f"default: {' '.join(there)}")
    add("--data", default="data", help="folder of the data files (default: data)")
    add("--epochs", type=natural, default=5, help="timed epochs of each (default: 5)")
    add("--limit", type=natural, help="use fewer training samples")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--threads", type=natural, help="CPU threads (default: the processors there are)")
    add("--override", nargs="+", default=[], metavar="KEY=VALUE", help="more for the configuration")
    add("--json", metavar="PATH", help="write every number there")
    return parser.parse_args()


@contextlib.contextmanager
def contest(name: str, args: argparse.Namespace, folder: Path) -> Iterator[Contest]:
    """An experiment ready to train, its record open in ``folder``, and its rival."""
    overrides = [
        f"experiment={name}",
        "tracking=none",
        "trainer.progress=false",
        f"paths.data={args.data}",
        f"device.type={args.device}",
        f"device.threads={args.threads or 'null'}",
        f"dataset.limit={args.limit or 'null'}",
        *args.override,
    ]
    cfg = compose(overrides)
    config = validate_composed(cfg)
    from eqprop.cli import build  # loads torch, which no mistake above should have to wait for

    training = build.build_training(cfg, config)
    trackers = build.build_trackers(config, cfg, training)
    (folder / name).mkdir(parents=True)
    with build.recording(trackers, build.run_info(config, cfg, folder / name, None), training):
        loss = "mse" if cfg.cost._target_.endswith("SquaredError") else "cross_entropy"
        rival = backprop(training, config.model.activation, loss, float(cfg.optimizer.lr))
        yield Contest(name, {"eqprop": ours(training), "backprop": rival})


def ours(training: Training) -> Callable[[int], Row]:
    """An epoch of the run, as ``Training.fit`` has it."""

    from eqprop.training.loop import Position

    def epoch(number: int) -> Row:
        training.at = Position(number)
        start = time.perf_counter()
        training.note(training.train_epoch())
        trained = time.perf_counter()
        measured = training.evaluation(final=True)
        return {
            "train_s": trained - start,
            "eval_s": time.perf_counter() - trained,
            "accuracy": float(measured["accuracy/test"]),
        }

    return epoch


def backprop(training: Training, activation: str, loss: str, lr: float) -> Callable[[int], Row]:
    """An epoch of backprop over the same tensors."""
    from _backprop import LOSSES, Network, accuracy, fused_adam, train_epoch

    data, (parameter, *_) = training.data, training.model.parameters()
    network = Network(training.model.dimensions, activation).to(parameter)
    optimizer = fused_adam(list(network.parameters()), lr)
    train, test = ((split.x, split.y) for split in (data.train, data.test))

    def epoch(number: int) -> Row:
        start = time.perf_counter()
        train_epoch(network, LOSSES[loss], optimizer, train, data.batch_size)
        trained = time.perf_counter()
        share = accuracy(network, test)
        now = time.perf_counter()
        return {"train_s": trained - start, "eval_s": now - trained, "accuracy": share}

    return epoch


def compete(contests: list[Contest], epochs: int) -> None:
    """Epoch by epoch, in an order that turns round; the first epoch of each is not counted."""
    for number in range(1, epochs + 2):
        for one in contests:
            for who, row in alternate(one.entrants, number):
                if number > 1:
                    one.rows[who].append(row)


def show(results: list[dict[str, Any]]) -> None:
    from _report import console, table_of

    headings = ("experiment", "eqprop", "backprop", "ratio", "quartiles", "evaluation", "ratio")
    table = table_of("An epoch: seconds, medians", headings)
    for result in results:
        train, ratio = result["train_s"], result["train_s"]["ratio"]
        table.add_row(
            result["experiment"],
            *(f"{train[who]['median']:.2f}" for who in ("eqprop", "backprop")),
            f"{ratio['median']:.2f}",
            f"{ratio['q1']:.2f}–{ratio['q3']:.2f}",
            f"{result['eval_s']['eqprop']['median']:.2f}",
            f"{result['eval_s']['ratio']['median']:.2f}",
        )
    console().print(table)


def main() -> None:
    args = arguments()
    calm_idle_threads()  # as a run does
    with scratch() as folder, contextlib.ExitStack() as stack:
        names = dict.fromkeys(args.experiments)
        contests = [stack.enter_context(contest(name, args, folder)) for name in names]
        report: dict[str, Any] = {"machine": machine(), "settings": vars(args)}
        compete(contests, args.epochs)
    report["results"] = [one.result() for one in contests]
    show(report["results"])
    write_json(args.json, report)


if __name__ == "__main__":
    exit_cleanly(main)
