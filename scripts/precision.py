"""What each precision costs the gradient, against float64, layer by layer.

    python scripts/precision.py                          both models on the CPU, fresh and trained
    python scripts/precision.py --device cuda            on a GPU, TF32 too
    python scripts/precision.py model=hopfield --epochs 5 --json precision.json

One batch, the same weights and the same first state for all. Overrides choose the model, solver and
data, as for scripts/train.py. A row is one parameter: the error's norm over the gradient's, and the
cosine between the two.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from _timing import exit_cleanly, write_json
from rich.table import Table
from torch import Tensor

from eqprop.cli import build
from eqprop.config.compose import compose, validate_composed
from eqprop.data import one_hot
from eqprop.run.errors import UserError
from eqprop.run.quiet import QuietConsole
from eqprop.training.loop import Training

MODELS = ("model=gaussian", "model=hopfield")
QUIET = ("tracking=none", "trainer.progress=false", "dynamics.init=auto")


class Precision(NamedTuple):
    """A name, and the keys of `device` that choose it."""

    name: str
    dtype: str
    matmul: str = "highest"


ON_ALL = (
    Precision("float32", "float32"),
    Precision("bfloat16", "bfloat16"),
    Precision("float32, matmul=medium", "float32", "medium"),
)
ON_CUDA = (Precision("float32, matmul=high (TF32)", "float32", "high"),)


class Error(NamedTuple):
    """How far a parameter's gradient is from float64's."""

    relative: float
    cosine: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table for each model and state, write JSON if asked to."""
    args = parse(argv)
    precisions = [*ON_ALL, *(ON_CUDA if args.device == "cuda" else ())]
    chosen = [word for word in args.overrides if word.startswith("model=")] or MODELS
    rest = [word for word in args.overrides if not word.startswith("model=")]
    found = []
    try:
        for model in chosen:
            overrides = [model, *rest, *QUIET, f"device={args.device}"]
            for epochs in dict.fromkeys((0, args.epochs)):
                rows = list(measured(overrides, epochs, precisions))
                show(f"{model.partition('=')[2]}, {epochs} epochs, {args.device}", rows)
                found += [{"model": model, "epochs": epochs, **row} for row in rows]
        write_json(args.json, found)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--epochs", type=_count, default=3, help="of training, for the second table (0: none)"
    )
    parser.add_argument("--json", metavar="PATH", help="a file to write the numbers to")
    parser.add_argument("overrides", nargs="*", help="as for scripts/train.py")
    return parser.parse_intermixed_args(argv)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= 0")
    return int(text)


def measured(
    overrides: Sequence[str], epochs: int, precisions: Sequence[Precision]
) -> Iterator[dict[str, Any]]:
    """A row for each precision and parameter, with weights trained in float32 for ``epochs``."""
    start = built(overrides, Precision("", "float32"))
    for start.at.epoch in range(1, epochs + 1):
        start.train_epoch()
        start.at.batches = 0
    weights = start.model.state_dict()
    exact = gradients(built(overrides, Precision("", "float64")), weights)
    for precision in precisions:
        rounded = gradients(built(overrides, precision), weights)
        for name, right in exact.items():
            row = error_of(rounded[name], right)
            yield {"precision": precision.name, "parameter": name, **row._asdict()}


def built(overrides: Sequence[str], precision: Precision) -> Training:
    """The training of a command line in this precision."""
    keys = [f"device.dtype={precision.dtype}", f"device.matmul={precision.matmul}"]
    cfg = compose([*overrides, *keys])
    return build.build_training(cfg, validate_composed(cfg))


def gradients(training: Training, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of the first batch at these weights, by parameter, as float64 on the CPU."""
    model, split = training.model, training.data.train
    model.load_state_dict(weights)
    x, y = split.x[: training.data.batch_size], split.y[: training.data.batch_size]
    model.resize(len(x))
    model.clamp_layer(0, x)
    target = one_hot(y, training.data.n_classes, x.dtype)
    estimate = training.estimator.estimate(model, training.solver, target)
    named = zip(model.named_parameters(), estimate.gradients, strict=True)
    return {name: gradient.detach().double().cpu() for (name, _), gradient in named}


def error_of(found: Tensor, right: Tensor) -> Error:
    """‖found − right‖ / ‖right‖, and the cosine of the angle between them."""
    norm = torch.linalg.vector_norm
    cosine = torch.sum(found * right) / (norm(found) * norm(right))
    return Error(float(norm(found - right) / norm(right)), float(cosine))


def show(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print one table."""
    table = Table("precision", "parameter", "relative error", "1 - cosine", title=title)
    for row in rows:
        numbers = f"{row['relative']:.2e}", f"{max(0.0, 1 - row['cosine']):.2e}"
        table.add_row(row["precision"], row["parameter"], *numbers)
    QuietConsole(highlight=False, markup=False).print(table)


if __name__ == "__main__":
    exit_cleanly(main)
