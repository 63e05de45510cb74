"""Which energies, activations and solvers learn together, and what is said of those that do not.

    python scripts/benchmarks/learning_grid.py --out docs/learning.md

Each cell is three short epochs on digits; a cell that prints a line, with a setting that it says to
choose, is trained once more with that setting. ``--data digits`` takes the smaller digits that come
with scikit-learn.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path

from _common import composed, natural, parser_for

from eqprop.run.errors import UserError
from eqprop.run.files import write_atomically
from eqprop.run.streams import exit_cleanly

ENERGIES = ("gaussian", "predictive_coding", "hopfield", "rate_hopfield")
ACTIVATIONS = (
    *("identity", "sigmoid", "shifted_sigmoid", "hard_sigmoid", "half_hard_sigmoid"),
    *("tanh", "relu", "relu6", "leaky_relu", "softplus"),
)
SOLVERS = ("auto", "euler", "euler_50", "sweep", "newton", "exact", "anderson")
STARTS = ("zeros", "normal", "previous", "per_example")
DEEP = "model.hidden=[32,32,32,32]"
COMMON = (
    *("dataset.limit=1000", "dataset.validation=0", "dataset.batch_size=20", "model.hidden=[32]"),
    *("optimizer.lr=3e-3", "trainer.epochs=3", "device.threads=1", "device.compile=false"),
)
FLOOR = 0.4  # four times chance: what learns at all is above it after some 150 steps

HEAD = """# What learns with what

Three epochs of {data} digits (1 000 of them, batches of 20, 32 hidden units, Adam with `optimizer.lr=3e-3`), 150 steps: enough to
tell what learns from what does not, not what is best. Test accuracy in %; chance is 10. *refused*: the command ends with a line
before it trains. A letter marks a cell whose run prints a warning, listed below the table; in brackets is the accuracy with the first
setting that the warning says to choose.

The lines are found by looking at a few training samples before the first step and after the first and the third epoch: at their
gradient with the nudge and with a nudge of no force, which shows how much of it is drift of phases that have not come to rest;
at weights whose gradient is 0 or far below the largest; and at a cost that rises.

<sub>`python scripts/benchmarks/learning_grid.py --out docs/learning.md`</sub>
"""  # noqa: E501


@dataclass(frozen=True)
class Cell:
    """What came of a training: its accuracy, or None, and the line that was printed, or None."""

    accuracy: float | None
    line: str | None
    mended: float | None = None
    refused: bool = False

    @property
    def spoke_or_learnt(self) -> bool:
        return self.line is not None or (self.accuracy is not None and self.accuracy >= FLOOR)


class Lines(logging.Handler):
    """Keeps what the learning check says."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage())


def trained(words: Sequence[str]) -> Cell:
    """Train what the command with these overrides would."""
    from eqprop.cli.build import build_session
    from eqprop.training.divergence_guard import DivergenceGuard
    from eqprop.training.learning_check import LearningCheck
    from eqprop.training.loop import Training

    lines, said = Lines(), logging.getLogger("eqprop.training.learning_check")
    said.addHandler(lines)
    session = None
    try:
        cfg, config = composed(words)
        session = build_session(cfg, config)
        watching = [DivergenceGuard(), LearningCheck()]
        Training(session, watching, log_every=10**9, eval_every=10**9).fit()
    except UserError as error:
        told = lines.found or [str(error)]
        return Cell(None, told[0], refused=session is None)
    finally:
        said.removeHandler(lines)
    assert len(lines.found) <= 1, "it is told once"
    return Cell(session.last["accuracy/test"], lines.found[0] if lines.found else None)


def chosen(line: str) -> list[str]:
    """The settings that a line says to choose first."""
    found = re.search(r"choose ((?:[a-z_.]+=[\w.\[\],]+ ?)+)", line)
    return found[1].rstrip(" ,").split() if found else []


def cell(words: Sequence[str]) -> Cell:
    """As ``trained``, once more with what the line says."""
    found = trained(words)
    if found.line is None or found.refused or not (remedy := chosen(found.line)):
        return found
    gone = {word.partition("=")[0] for word in remedy}
    kept = [word for word in words if word.partition("=")[0] not in gone]
    if "dynamics" in gone:
        kept = [word for word in kept if not word.startswith("dynamics.")]
    return Cell(found.accuracy, found.line, trained([*kept, *remedy]).accuracy)


def row_of(words: Sequence[str], columns: Sequence[Sequence[str]]) -> list[Cell]:
    return [cell([*words, *column]) for column in columns]


def shown(found: Cell, notes: dict[str, str]) -> str:
    """A cell of the page; its line goes into ``notes``, once for all that read the same."""
    if found.refused:
        return "*refused*"
    accuracy = "diverged" if found.accuracy is None else f"{100 * found.accuracy:.0f}"
    if found.line is None:
        return accuracy
    kind = re.sub(r"^step \d+: ", "", found.line)
    kind = re.sub(r"n_relax=\d+", "n_relax=…", kind)
    kind = re.sub(r"\d[\d.]*(e[-+]?\d+)?", "…", kind)
    letter = notes.setdefault(kind, "abcdefghijklmnopqrstuvwxyz"[len(notes) % 26])
    mended = "" if found.mended is None else f" [{100 * found.mended:.0f}]"
    return f"{accuracy} ({letter}){mended}"


def table(
    title: str, names: Sequence[str], rows: dict[str, list[Cell]], notes: dict[str, str]
) -> str:
    lines = [f"## {title}", "", f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for name, cells in rows.items():
        lines.append(f"| {name} | {' | '.join(shown(one, notes) for one in cells)} |")
    return "\n".join(lines) + "\n"


Rows = list[tuple[str, list[str]]]


def tables() -> Iterator[tuple[str, list[str], Rows]]:
    """Title, columns and rows; both as words of the command."""
    solvers = [f"dynamics={solver}" for solver in SOLVERS]
    for energy in ENERGIES:
        rows = [(phi, [f"model={energy}", f"model.activation={phi}"]) for phi in ACTIVATIONS]
        yield f"`model={energy}`", solvers, rows
    starts = [f"dynamics.init={start}" for start in STARTS]
    relaxed = product(("hopfield", "rate_hopfield"), ("euler", "newton"), ("hard_sigmoid", "tanh"))
    rows = [
        (f"{e}, {d}, {phi}", [f"model={e}", f"dynamics={d}", f"model.activation={phi}"])
        for e, d, phi in relaxed
    ]
    yield "Where the free phase starts", starts, rows
    deep = [f"model={energy}" for energy in ENERGIES]
    phis = "sigmoid", "hard_sigmoid", "tanh", "relu"
    yield (
        "Four hidden layers, `dynamics=auto`",
        deep,
        [(phi, [f"model.activation={phi}", DEEP]) for phi in phis],
    )


def grid(
    data: str, run: Callable[[Sequence[Sequence[str]], Sequence[Sequence[str]]], list[list[Cell]]]
) -> Iterator[tuple[str, list[str], dict[str, list[Cell]]]]:
    """Every table with its cells; ``run`` trains some rows, each of all columns."""
    for title, columns, rows in tables():
        common = [f"dataset={data}", *COMMON]
        cells = run([[*common, *words] for _, words in rows], [[word] for word in columns])
        names = [word.partition("=")[2] for word in columns]
        yield title, names, dict(zip((name for name, _ in rows), cells, strict=True))


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--data", default="mnist5k", help="option of the group dataset (mnist5k)")
    parser.add_argument("--jobs", default=1, type=natural, help="processes (1)")
    parser.add_argument("--out", help="write the page; without, it is printed")
    args = parser.parse_args()
    notes: dict[str, str] = {}
    with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:

        def run(
            rows: Sequence[Sequence[str]], columns: Sequence[Sequence[str]]
        ) -> list[list[Cell]]:
            return list(pool.map(partial(row_of, columns=columns), rows))

        parts = [HEAD.format(data=args.data)]
        for title, names, rows in grid(args.data, run):
            parts.append(table(title, names, rows, notes))
            print(parts[-1], flush=True)
    lines = [f"- ({letter}) {line}" for line, letter in notes.items()]
    parts.append(
        "\n".join(
            [
                "## The lines",
                "",
                "Numbers, which differ from cell to cell, are left out.",
                "",
                *lines,
                "",
            ]
        )
    )
    if args.out:
        write_atomically(Path(args.out), "\n".join(parts).encode())
    else:
        print(parts[-1])


if __name__ == "__main__":
    exit_cleanly(main)
