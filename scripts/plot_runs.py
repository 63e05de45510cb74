"""Accuracy and seconds of each epoch, for several runs in one figure.

    python scripts/plot_runs.py outputs/2026-01-01/* --out docs/baselines.png
    python scripts/plot_runs.py outputs/a outputs/b --labels "dt 0.1" "dt 0.2" --out two.png

Labels come from each run's configuration. A run that is still going, or that was cut off, is shown
as far as it got.
"""

from __future__ import annotations

import argparse
import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path

from eqprop.report.figure import pyplot, save
from eqprop.report.runs import differing
from eqprop.run.errors import UserError
from eqprop.run.reading import Run, read_run
from eqprop.run.streams import exit_cleanly

MOST, WRAP = 3, 34  # settings that tell twins apart; letters a line of a label
SPLITS = ("test", "validation", "train")  # which accuracy is shown, the first that there is

Curve = list[tuple[float, float]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN_FOLDER", help="a folder with metrics.jsonl")
    add("--out", required=True, metavar="PATH", help="the figure to write, .png, .svg or .pdf")
    add("--labels", nargs="+", help="one for each run (default: from its configuration)")
    add("--split", choices=SPLITS,
        help="accuracy of which data (default: test if most epochs have it)")  # fmt: skip
    add("--title", default="")
    args = parser.parse_args()
    if args.labels and len(args.labels) != len(args.runs):
        parser.error(f"--labels: {len(args.labels)} for {len(args.runs)} runs")
    return args


def curve(run: Run, name: str) -> Curve:
    """(epoch, value) wherever a row has both."""
    pairs = zip(*run.points(name, "epoch"), strict=True)
    return [(epoch, value) for epoch, value in pairs if value is not None]


def accuracy(run: Run, wanted: str | None) -> tuple[str, Curve]:
    """Of which data, and the curve.

    Raises:
        UserError: if the run has not finished an epoch, or has no accuracy of the kind wanted.
    """
    curves = {name: curve(run, f"accuracy/{name}") for name in SPLITS}
    if wanted is None:  # test, unless it was only measured once, at the end
        longest = max(len(curves["test"]), len(curves["validation"]))
        known = [name for name in SPLITS if curves[name] and len(curves[name]) >= longest]
    else:
        known = [wanted] if curves[wanted] else []
    if not known:
        raise UserError(f"{run.folder}: metrics.jsonl has no {wanted or 'test'} accuracy yet")
    return known[0], curves[known[0]]


def label_of(run: Run) -> str:
    """The run's own name, or energy, solver and data; the folder's name without a configuration."""
    parts = [run.config.get(f"{group}._target_") for group in ("model", "dynamics", "dataset")]
    if run.config.get("name") or None in parts:
        return str(run.config.get("name") or run.folder.resolve().name)
    model, solver, data = (str(part).rpartition(".")[2] for part in parts)
    steps = run.config.get("dynamics.n_relax")
    return f"{model}, {solver}{'' if steps is None else f' {steps}'}, {data}"


def told_apart(runs: Sequence[Run]) -> list[str]:
    """The labels; one that several runs have is followed by what differs between them."""
    labels = []
    for run in runs:
        twins = [other for other in runs if label_of(other) == label_of(run)]
        keys = sorted(differing([twin.config for twin in twins]))[:MOST]
        told = [f"{key.rpartition('.')[2]} {run.config.get(key, '–')}" for key in keys]
        suffix = (told or [run.folder.resolve().name]) if len(twins) > 1 else []
        labels.append(", ".join([label_of(run), *suffix]))
    return labels


def draw(runs: Sequence[Run], labels: Sequence[str], args: argparse.Namespace) -> None:
    """Accuracy above, seconds an epoch below, one legend beside them."""
    found = [accuracy(run, args.split) for run in runs]
    plt = pyplot()
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(9, 6.2), sharex=True, height_ratios=(1.7, 1), layout="constrained"
    )
    for i, (run, label, (_, points)) in enumerate(zip(runs, labels, found, strict=True)):
        x, y = zip(*points, strict=True)
        look = {"marker": "o" if len(x) < 25 else None, "ms": 4, "ls": "-:"[i // 6 % 2]}
        times = curve(run, "time/train_s") or [(x[-1], float("nan"))]
        best, last = (f"{100 * value:.2f}" for value in (max(y), y[-1]))
        seconds = statistics.median(t for _, t in times)
        numbers = f"best {best} %, last {last} %, {seconds:.3g} s"
        text = "\n".join([*textwrap.wrap(label, WRAP), numbers])
        top.plot(x, [100 * value for value in y], label=text, **look)
        bottom.plot(*zip(*times, strict=True), **look)
    splits = " / ".join(dict.fromkeys(split for split, _ in found))
    top.set_title(args.title or f"Accuracy on the {splits} set, %")
    bottom.set_title("Training time of an epoch, seconds (beside: the median)")
    bottom.set_xlabel("epoch")
    bottom.set_ylim(bottom=0)
    bottom.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside right center", fontsize=8)
    save(figure, args.out)
    plt.close(figure)


def main() -> None:
    args = arguments()
    for folder in args.runs:
        if not (folder / "metrics.jsonl").is_file():
            raise UserError(f"{folder} is no run's folder: it has no metrics.jsonl")
    runs = [read_run(folder) for folder in args.runs]
    draw(runs, args.labels or told_apart(runs), args)


if __name__ == "__main__":
    exit_cleanly(main)
