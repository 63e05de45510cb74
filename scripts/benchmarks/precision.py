"""What each precision costs the gradient, against float64, layer by layer.

    python scripts/benchmarks/precision.py                both models on the CPU, fresh and trained
    python scripts/benchmarks/precision.py --device cuda  on a GPU, TF32 too
    python scripts/benchmarks/precision.py model=hopfield --epochs 5 --json precision.json

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
from _common import Row, parser_for, session_of, show, write_json
from torch import Tensor

from eqprop.data import one_hot
from eqprop.run.errors import UserError
from eqprop.run.streams import exit_cleanly
from eqprop.training.loop import Training
from eqprop.training.session import Session

MODELS = ("model=gaussian", "model=hopfield")
QUIET = ("tracking=none", "trainer.progress=false")


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
                title = f"{model.partition('=')[2]}, {epochs} epochs, {args.device}"
                show(title, rows, COLUMNS)
                found += [{"model": model, "epochs": epochs, **row} for row in rows]
        write_json(args.json, found)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = parser_for(__doc__)
    add = parser.add_argument
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--epochs", type=_count, default=3, help="of training, for the second table (0: none)")
    add("--json", metavar="PATH", help="a file to write the numbers to")
    add("overrides", nargs="*", help="as for scripts/train.py")
    return parser.parse_intermixed_args(argv)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number >= 0")
    return int(text)


def measured(
    overrides: Sequence[str], epochs: int, precisions: Sequence[Precision]
) -> Iterator[Row]:
    """A row for each precision and parameter, with weights trained in float32 for ``epochs``."""
    start = session_in(Precision("", "float32"), [*overrides, f"trainer.epochs={max(epochs, 1)}"])
    if epochs:
        Training(start).fit()
    weights = start.network.state_dict()
    exact = gradients(session_in(Precision("", "float64"), overrides), weights)
    for precision in precisions:
        rounded = gradients(session_in(precision, overrides), weights)
        for name, right in exact.items():
            row = error_of(rounded[name], right)
            yield {"precision": precision.name, "parameter": name, **row._asdict()}


def session_in(precision: Precision, overrides: Sequence[str]) -> Session:
    """What a command line trains, in this precision."""
    keys = [f"device.dtype={precision.dtype}", f"device.matmul={precision.matmul}"]
    return session_of([*overrides, *keys])


def gradients(session: Session, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of the first batch at these weights, by parameter, as float64 on the CPU."""
    network, data = session.network, session.data
    network.load_state_dict(weights)
    x, y = next(data.train.batches(data.batch_size))
    state = session.state(len(x))
    state.clamp(0, x)
    target = one_hot(y, data.n_classes, x.dtype)
    parts = network, state, session.solver, session.cost, target
    named = zip(
        network.named_parameters(), session.estimator.estimate(*parts).gradients, strict=True
    )
    return {name: gradient.detach().double().cpu() for (name, _), gradient in named}


def error_of(found: Tensor, right: Tensor) -> Error:
    """‖found − right‖ / ‖right‖, and the cosine of the angle between them."""
    norm = torch.linalg.vector_norm
    cosine = torch.sum(found * right) / (norm(found) * norm(right))
    return Error(float(norm(found - right) / norm(right)), float(cosine))


COLUMNS: dict[str, Any] = {
    "precision": lambda row: row["precision"],
    "parameter": lambda row: row["parameter"],
    "relative error": lambda row: f"{row['relative']:.2e}",
    "1 - cosine": lambda row: f"{max(0.0, 1 - row['cosine']):.2e}",
}


if __name__ == "__main__":
    exit_cleanly(main)
