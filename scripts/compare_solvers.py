"""Which solver to relax with: steps and wall time to a residual, on fresh and trained networks.

    python scripts/compare_solvers.py --out docs/solvers.png
    python scripts/compare_solvers.py --energies hopfield --hidden 500 500 --json solvers.json
    python scripts/compare_solvers.py --run outputs/2026-01-31/12-00-00-hopfield-mnist5k-a1b2c3

The Gaussian energy with cross-entropy and the Hopfield energy with the squared error, each as it is
initialised and after a short training; `exact` has a network of its own, with a piecewise linear
activation, beside `newton` on the same one. All solvers start from the same state: freely from
--init, nudged from the free equilibrium. Residuals and times are measured in separate passes; times
are medians over batches and rounds, taken in turns. The input's product is made beforehand.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _timing import exit_cleanly, machine, natural, positive, write_json

if TYPE_CHECKING:
    from _solver_starts import Batch

    from eqprop import EnergyBasedModel
    from eqprop.data import Data
    from eqprop.training.loop import Training

ENERGIES = ("gaussian", "hopfield")
PIECEWISE = "hard_sigmoid"  # what exact is tried with, where --activation is not piecewise linear
Row = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """A model with what tables say of it; ``only`` some solvers, None: all that can."""

    energy: str
    state: str
    activation: str
    model: EnergyBasedModel
    data: Data
    accuracy: float | None = None
    only: tuple[str, ...] | None = None

    def describe(self) -> Row:
        cost = {"SquaredError": "mse", "CrossEntropy": "cross_entropy"}
        kind = type(self.model.c_energy).__name__
        return {
            "energy": self.energy,
            "state": self.state,
            "activation": self.activation,
            "cost": cost.get(kind, kind),
            "sizes": self.model.dimensions,
            "accuracy": self.accuracy,
            "feedforward": self.model.has_feedforward,
        }


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--energies", nargs="+", choices=ENERGIES, default=list(ENERGIES))
    add("--hidden", type=natural, nargs="+", default=[1000], help="units (default: 1000)")
    add("--activation", default="sigmoid", help="of the hidden and output layers")
    add("--dataset", default="mnist5k", help="an option of conf/dataset (default: mnist5k)")
    add("--data", default="data", help="folder of the data files (default: data)")
    add("--epochs", type=natural, default=10, help="of the training (default: 10)")
    add("--run", type=Path, metavar="FOLDER", help="study a run's network instead")
    add("--batch", type=natural, default=100, help="samples of a batch (default: 100)")
    add("--batches", type=natural, default=3, help="how many of them (default: 3)")
    add("--init", choices=("normal", "zeros"), default="normal", help="a free phase's first state")
    add("--levels", type=share, nargs="+", default=[1e-1, 1e-2, 1e-3, 1e-4],
        help="residuals to reach, relative to the first")  # fmt: skip
    add("--steps", type=natural, default=300, help="at most, of any solver (default: 300)")
    add("--rounds", type=natural, default=5, help="turns of each case and batch (default: 5)")
    add(
        "--budget",
        type=positive,
        default=0.5,
        help="seconds a case: a slow one gets fewer turns",
    )
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


def networks(args: argparse.Namespace) -> Iterator[Network]:
    """Every network of the study, fresh and trained."""
    if args.run:
        yield from networks_of_run(args)
        return
    from eqprop.activation import as_activation

    for energy in args.energies:
        yield from fresh_and_trained(energy, args.activation, args)
        if energy == "hopfield" and not as_activation(args.activation).pieces:
            yield from fresh_and_trained(energy, PIECEWISE, args, ("newton", "exact"))


def fresh_and_trained(
    energy: str, activation: str, args: argparse.Namespace, only: tuple[str, ...] | None = None
) -> Iterator[Network]:
    """The same network before and after a training by the recommended solver."""
    training = training_of(energy, activation, args)
    fresh = training_of(energy, activation, args)
    yield Network(energy, "fresh", activation, fresh.model, fresh.data, None, only)
    objective = training.fit()
    yield Network(energy, "trained", activation, training.model, training.data, objective, only)


def training_of(energy: str, activation: str, args: argparse.Namespace) -> Training:
    """A training as the command line would make it. Raises ConfigError for what is not there."""
    from eqprop.cli.build import build_training
    from eqprop.config.compose import compose, validate_composed

    cfg = compose([
        "tracking=none",
        f"model={energy}",
        f"model.hidden=[{','.join(map(str, args.hidden))}]",
        f"model.activation={activation}",
        f"dataset={args.dataset}",
        f"dataset.batch_size={args.batch}",
        f"paths.data={args.data}",
        f"trainer.epochs={args.epochs}",
        f"device.type={args.device}",
        f"device.dtype={args.dtype}",
        f"seed={args.seed}",
    ])  # fmt: skip
    return build_training(cfg, validate_composed(cfg))


def networks_of_run(args: argparse.Namespace) -> Iterator[Network]:
    """A run's network as it began and as it was saved last, with the run's own data."""
    from omegaconf import OmegaConf

    import eqprop
    from eqprop.cli import build
    from eqprop.config.schema import validate
    from eqprop.training import load as trained

    found = trained.find(args.run)
    trained.refuse_foreign(found)  # a checkpoint is data, whatever it names as code
    plain = found.meta["config"]
    plain["device"]["type"] = args.device
    plain["dataset"]["batch_size"] = args.batch
    if args.data != "data":
        plain["paths"]["data"] = args.data
    training = build.build_training(OmegaConf.create(plain), validate(plain))
    kind = str(plain["model"]["_target_"]).rpartition(".")[2]
    energy = {"ConditionalGaussian": "gaussian", "RestrictedHopfield": "hopfield"}.get(kind, kind)
    activation, data = plain["model"]["activation"], training.data
    yield Network(energy, "fresh", activation, training.model, data)
    training.model = eqprop.load(args.run, device=data.train.x.device)
    accuracy, _ = training.evaluate(data.validation or data.test)
    yield Network(energy, "trained", activation, training.model, data, accuracy)


def batches_of(network: Network, args: argparse.Namespace) -> list[Batch]:
    """The first batches of an epoch, all of one size."""
    from _solver_starts import batch_of

    from eqprop.data import epoch_order, one_hot

    train, n_classes = network.data.train, network.data.n_classes
    order = epoch_order(len(train), args.seed, 1)
    found = list(islice(train.batches(args.batch, order), args.batches))
    pairs = [(x, one_hot(y, n_classes, x.dtype)) for x, y in found if len(x) == len(found[0][0])]
    return [
        batch_of(network.model, x, target, args.init, args.seed + i)
        for i, (x, target) in enumerate(pairs)
    ]


def study(network: Network, args: argparse.Namespace) -> list[Row]:
    import _relaxing
    from _solver_starts import solvers_of

    solvers = solvers_of(network.model, network.only)
    rows = _relaxing.study(network.model, solvers, batches_of(network, args), args)
    return [{"network": network.describe()} | row for row in rows]


def main() -> None:
    args = arguments()
    if args.out:
        from _figure import pyplot

        pyplot()  # now, rather than after measuring
    import _solver_report as report
    from _report import console

    screen, rows = console(), list[Row]()
    for network in networks(args):
        rows += (found := study(network, args))
        report.show(screen, found)
    energies = dict.fromkeys(row["network"]["energy"] for row in rows)
    advice = {energy: report.advice(energy, rows) for energy in energies}
    for sentence in advice.values():
        screen.print(sentence, markup=False, highlight=False)
    settings = vars(args) | {"run": str(args.run) if args.run else None}
    write_json(args.json, {"machine": machine(), "settings": settings, "rows": rows,
                           "advice": advice})  # fmt: skip
    if args.out:
        report.plot(rows, args.out)


if __name__ == "__main__":
    exit_cleanly(main)
