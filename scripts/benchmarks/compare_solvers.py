"""Which solver to relax with: steps and wall time to a residual, on fresh and trained networks.

    python scripts/benchmarks/compare_solvers.py --out docs/solvers.png
    python scripts/benchmarks/compare_solvers.py --energies hopfield --hidden 500 500 --json a.json
    python scripts/benchmarks/compare_solvers.py --run RUN

The Gaussian energy with cross-entropy and the Hopfield energy with the squared error, each as it is
initialised and after a short training; `exact` has a network of its own, with a piecewise linear
activation, beside `newton` on the same one. All solvers start from the same state: freely from
--init, nudged from the free equilibrium. Residuals and times are measured in separate passes; times
are medians over batches and rounds, taken in turns. The input's product is made beforehand.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from _common import (
    Row,
    console,
    machine,
    natural,
    parser_for,
    positive,
    session_of,
    write_json,
)

from eqprop.run.streams import exit_cleanly

if TYPE_CHECKING:
    from eqprop.training.session import Session

ENERGIES = ("gaussian", "hopfield")
PIECEWISE = "hard_sigmoid"  # what exact is tried with, where --activation is not piecewise linear
COSTS = {"SquaredError": "mse", "CrossEntropy": "cross_entropy"}


@dataclass(frozen=True)
class Subject:
    """A network with what tables say of it; ``only`` some solvers, None: all that can."""

    energy: str
    state: str
    activation: str
    session: Session
    accuracy: float | None = None
    only: Sequence[str] | None = None

    def describe(self) -> Row:
        network, cost = self.session.network, type(self.session.cost).__name__
        return {
            "energy": self.energy,
            "state": self.state,
            "activation": self.activation,
            "cost": COSTS.get(cost, cost),
            "sizes": [shape[0] if len(shape) == 1 else shape for shape in network.shapes],
            "accuracy": self.accuracy,
            "feedforward": network.feedforward,
        }


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--energies", nargs="+", choices=ENERGIES, default=list(ENERGIES))
    add("--hidden", type=natural, nargs="+", default=[1000], help="units (default: 1000)")
    add("--activation", default="sigmoid", help="of the hidden and output layers")
    add("--dataset", default="mnist5k", help="an option of conf/dataset (default: mnist5k)")
    add("--data", help="folder of the data files (default: data, or the run's own)")
    add("--epochs", type=natural, default=10, help="of the training (default: 10)")
    add("--run", type=Path, metavar="FOLDER", help="study a run's network instead")
    add("--batch", type=natural, default=100, help="samples of a batch (default: 100)")
    add("--batches", type=natural, default=3, help="how many of them (default: 3)")
    add("--init", choices=("normal", "zeros"), default="normal", help="a free phase's first state")
    add("--levels", type=share, nargs="+", default=[1e-1, 1e-2, 1e-3, 1e-4],
        help="residuals to reach, relative to the first")  # fmt: skip
    add("--steps", type=natural, default=300, help="at most, of any solver (default: 300)")
    add("--rounds", type=natural, default=5, help="turns of each case and batch (default: 5)")
    add("--budget", type=positive, default=0.5,
        help="seconds a case: a slow one gets fewer turns")  # fmt: skip
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--dtype", choices=("float32", "float64"), default="float32")
    add("--seed", type=int, default=2019, help="of weights, data order and first states")
    add("--json", metavar="PATH", help="write every number there")
    add("--out", metavar="PATH", help="draw the free phases there")
    args = parser.parse_args(argv)
    args.levels.sort(reverse=True)
    return args


def share(text: str) -> float:
    """A number between 0 and 1, for argparse."""
    try:
        if 0.0 < float(text) < 1.0:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")


def subjects(args: argparse.Namespace) -> Iterator[Subject]:
    """Every network of the study, fresh and trained."""
    if args.run:
        yield from subjects_of_run(args)
        return
    from eqprop.network.activation import as_activation

    for energy in args.energies:
        yield from fresh_and_trained(energy, args.activation, args)
        if energy == "hopfield" and not as_activation(args.activation).pieces:
            yield from fresh_and_trained(energy, PIECEWISE, args, ("newton", "exact"))


def fresh_and_trained(
    energy: str, activation: str, args: argparse.Namespace, only: Sequence[str] | None = None
) -> Iterator[Subject]:
    """The same network before and after a training by the recommended solver."""
    session = session_of([
        "tracking=none",
        f"model={energy}",
        f"model.hidden=[{','.join(map(str, args.hidden))}]",
        f"model.activation={activation}",
        f"dataset={args.dataset}",
        f"dataset.batch_size={args.batch}",
        f"paths.data={args.data or 'data'}",
        f"trainer.epochs={args.epochs}",
        f"device.type={args.device}",
        f"device.dtype={args.dtype}",
        f"seed={args.seed}",
    ])  # fmt: skip
    from eqprop.training.loop import Training

    yield Subject(energy, "fresh", activation, session, None, only)
    objective = Training(session).fit()
    yield Subject(energy, "trained", activation, session, objective, only)


def subjects_of_run(args: argparse.Namespace) -> Iterator[Subject]:
    """A run's network as it began and as it was saved last, with the run's own data."""
    from eqprop.cli.build import session_of_run
    from eqprop.training import load, snapshot
    from eqprop.training.session import evaluate

    found = load.find(args.run)
    changes = {"device.type": args.device, "dataset.batch_size": args.batch}
    if args.data is not None:
        changes["paths.data"] = args.data
    session = session_of_run(found, changes)
    model = found.meta["config"]["model"]
    energy, activation = model["_target_"].rpartition(".")[2].lower(), session.network.phi[1].name
    yield Subject(energy, "fresh", activation, session)
    snapshot.restore_weights(session.network, found)
    accuracy = evaluate(session, session.data.validation or session.data.test).accuracy
    yield Subject(energy, "trained", activation, session, accuracy)


def study(subject: Subject, args: argparse.Namespace) -> list[Row]:
    import _relaxing

    session = subject.session
    solvers = _relaxing.solvers_of(session, subject.only)
    batches = _relaxing.batches_of(session, args)
    rows = _relaxing.study(session.network, solvers, batches, args)
    return [{"network": subject.describe()} | row for row in rows]


def main() -> None:
    args = arguments()
    if args.out:
        from eqprop.report.figure import pyplot

        pyplot()  # now, rather than after measuring
    import _solver_report as report

    rows: list[Row] = []
    for subject in subjects(args):
        rows += (found := study(subject, args))
        report.show_network(found)
    energies = dict.fromkeys(row["network"]["energy"] for row in rows)
    advice = {energy: report.advice(energy, rows) for energy in energies}
    for sentence in advice.values():
        console().print(sentence)
    settings = vars(args) | {"run": str(args.run) if args.run else None}
    made = {"machine": machine(), "settings": settings, "rows": rows, "advice": advice}
    write_json(args.json, made)
    if args.out:
        report.plot(rows, args.out)


if __name__ == "__main__":
    exit_cleanly(main)
