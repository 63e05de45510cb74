"""What an epoch costs as users run it, beside a plain backprop loop over the same tensors.

    python scripts/benchmarks/benchmark_epoch.py --data DATA
    python scripts/benchmarks/benchmark_epoch.py hopfield_mnist --epochs 3 --json epoch.json
    python scripts/benchmarks/benchmark_epoch.py gaussian_mnist --override dataset=digits

Each experiment is built from its configuration, with its metrics file and log in a temporary
folder; its rival has the same sizes, activation, cost, batch size and learning rate, and fused
Adam. All train in turns, epoch by epoch, in one process. Medians, and ratios pair by pair.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _common import Row, machine, natural, parser_for, show, write_json
from _epochs import add_arguments, overrides_of, recorded, scratch
from _timing import alternate, quartiles

from eqprop.config.folder import conf_dir
from eqprop.run.hardware import calm_idle_threads
from eqprop.run.streams import exit_cleanly

if TYPE_CHECKING:
    from eqprop.training.loop import Training
    from eqprop.training.session import Session

EXPERIMENTS = ("gaussian_mnist", "hopfield_mnist", "gaussian_mnist_fast", "hopfield_mnist_fast")
Epoch = Callable[[int], dict[str, float]]


@dataclass
class Contest:
    """One experiment and its rival; each callable trains one epoch, evaluates, and gives a row."""

    name: str
    entrants: dict[str, Epoch]
    rows: dict[str, list[dict[str, float]]]

    def result(self) -> Row:
        """Quartiles of both and of their ratios, and the last epoch's accuracies."""
        out: Row = {"experiment": self.name, "epochs": len(self.rows["eqprop"])}
        for key in ("train_s", "eval_s"):
            times = {who: [row[key] for row in rows] for who, rows in self.rows.items()}
            pairs = zip(times["eqprop"], times["backprop"], strict=True)
            out[key] = {who: quartiles(values) for who, values in times.items()}
            out[key]["ratio"] = quartiles(ours / theirs for ours, theirs in pairs)
        out["accuracy"] = {who: rows[-1]["accuracy"] for who, rows in self.rows.items()}
        return out


def arguments() -> argparse.Namespace:
    there = [name for name in EXPERIMENTS if (conf_dir() / "experiment" / f"{name}.yaml").is_file()]
    parser = parser_for(__doc__)
    add_arguments(parser, there)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=natural, help="CPU threads (default: the processors)")
    return parser.parse_args()


@contextlib.contextmanager
def contest(name: str, args: argparse.Namespace, folder: Path) -> Iterator[Contest]:
    """An experiment ready to train, its record open in ``folder``, and its rival."""
    place = f"device.type={args.device}", f"device.threads={args.threads or 'null'}"
    with recorded(overrides_of(name, args, *place), folder / name) as (training, config):
        rival = backprop(training.session, config.model.activations()[0])
        entrants = {"eqprop": ours(training), "backprop": rival}
        yield Contest(name, entrants, {who: [] for who in entrants})


def timed(train: Callable[[int], object], evaluate: Callable[[], float]) -> Epoch:
    """What trains an epoch, evaluates, and measures both."""

    def epoch(number: int) -> dict[str, float]:
        start = time.perf_counter()
        train(number)
        trained = time.perf_counter()
        share = evaluate()
        now = time.perf_counter()
        return {"train_s": trained - start, "eval_s": now - trained, "accuracy": share}

    return epoch


def ours(training: Training) -> Epoch:
    """An epoch of the run, without checkpoints."""
    from eqprop.training.session import Position

    def train(number: int) -> None:
        training.session.at = Position(number)
        training.record(training.train_epoch())

    def tested() -> float:
        row: dict[str, float | int] = {}
        training.evaluate(row, final=True)
        return float(row["accuracy/test"])

    return timed(train, tested)


def backprop(session: Session, activation: str) -> Epoch:
    """An epoch of backprop over the same tensors."""
    from _backprop import LOSSES, Network, accuracy, fused_adam, train_epoch

    data, like = session.data, next(session.network.parameters())
    sizes = [units for (units,) in session.network.shapes]
    network = Network(sizes, activation).to(like)
    loss = LOSSES[type(session.cost).__name__]
    optimizer = fused_adam(network, float(session.optimizer.param_groups[0]["lr"]))
    train, test = ((split.x, split.y) for split in (data.train, data.test))
    return timed(
        lambda number: train_epoch(network, loss, optimizer, train, data.batch_size),
        lambda: accuracy(network, test),
    )


def compete(contests: list[Contest], epochs: int) -> None:
    """Epoch by epoch, in an order that alternates; the first epoch of each is not counted."""
    for number in range(1, epochs + 2):
        for one in contests:
            for who, row in alternate(one.entrants, number):
                if number > 1:
                    one.rows[who].append(row)


def show_results(results: list[Row]) -> None:
    def median(*keys: str) -> Callable[[Row], str]:
        return lambda row: f"{row[keys[0]][keys[1]]['median']:.2f}"

    def spread(row: Row) -> str:
        ratio = row["train_s"]["ratio"]
        return f"{ratio['q1']:.2f}–{ratio['q3']:.2f}"

    columns: dict[str, Any] = {
        "experiment": lambda row: row["experiment"],
        "eqprop": median("train_s", "eqprop"),
        "backprop": median("train_s", "backprop"),
        "ratio": median("train_s", "ratio"),
        "quartiles": spread,
        "evaluation": median("eval_s", "eqprop"),
        "its ratio": median("eval_s", "ratio"),
    }
    show("An epoch: seconds, medians", results, columns)


def main() -> None:
    args = arguments()
    calm_idle_threads()  # as a run does
    with scratch() as folder, contextlib.ExitStack() as stack:
        names = dict.fromkeys(args.experiments)
        contests = [stack.enter_context(contest(name, args, folder)) for name in names]
        report: Row = {"machine": machine(), "settings": vars(args)}
        compete(contests, args.epochs)
    report["results"] = [one.result() for one in contests]
    show_results(report["results"])
    write_json(args.json, report)


if __name__ == "__main__":
    exit_cleanly(main)
