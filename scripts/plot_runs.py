"""Accuracy and seconds of each epoch, for several runs in one figure.

    python scripts/plot_runs.py outputs/2026-01-01/* --out docs/baselines.png
    python scripts/plot_runs.py outputs/a outputs/b --labels "dt 0.1" "dt 0.2" --out two.png

Numbers come from each run's metrics.jsonl, labels from its .hydra/config.yaml. A run that is still
going, or that was cut off, is shown as far as it got.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _figure import COLOURS, INK, label_ends, pyplot, save
from _timing import exit_cleanly

from eqprop.run.errors import UserError

MOST, WRAP = 3, 30  # settings that tell twins apart; letters a line of a label
SPLITS = ("test", "validation", "train")  # which accuracy is shown, the first that there is


@dataclass(frozen=True)
class Run:
    """What the figure shows of one run, by epoch."""

    folder: Path
    config: dict[str, Any]
    label: str
    split: str
    accuracy: list[tuple[int, float]]
    seconds: list[tuple[int, float]]

    @property
    def best(self) -> float:
        return max(value for _, value in self.accuracy)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN_FOLDER", help="a folder that holds metrics.jsonl")
    add("--out", required=True, metavar="PATH", help="the figure to write, .png, .svg or .pdf")
    add("--labels", nargs="+", help="one for each run (default: from its configuration)")
    add(
        "--split",
        choices=SPLITS,
        help="accuracy of which data (default: test if most epochs have it)",
    )
    add("--title", default="")
    args = parser.parse_args()
    if args.labels and len(args.labels) != len(args.runs):
        parser.error(f"--labels: {len(args.labels)} for {len(args.runs)} runs")
    return args


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The objects of metrics.jsonl; a line that was not finished is left out.

    Raises:
        UserError: if there is no such file.
    """
    path = folder / "metrics.jsonl"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{folder} is no run's folder: {path.name}: {error.strerror}") from error
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def column(rows: Sequence[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    """(epoch, value) wherever a row has both; a later row of an epoch wins (a resumed run)."""
    found = {
        int(row["epoch"]): float(row[name])
        for row in rows
        if row.get("epoch") is not None and row.get(name) is not None
    }
    return sorted(found.items())


def read_run(folder: Path, label: str | None, wanted: str | None) -> Run:
    """One run's curves.

    Raises:
        UserError: if it has not finished an epoch, or has no accuracy of the kind wanted.
    """
    rows = read_rows(folder)
    curves = {name: column(rows, f"accuracy/{name}") for name in SPLITS}
    if wanted is None:  # test, unless it was only measured once, at the end
        longest = max(len(curves["test"]), len(curves["validation"]))
        known = [name for name in SPLITS if curves[name] and len(curves[name]) >= longest]
    else:
        known = [wanted] if curves[wanted] else []
    if not known:
        raise UserError(f"{folder}: metrics.jsonl has no {wanted or 'test'} accuracy yet")
    seconds = column(rows, "time/train_s")
    config = read_config(folder)
    label = label or label_of(config, folder)
    return Run(folder, config, label, known[0], curves[known[0]], seconds)


def read_config(folder: Path) -> dict[str, Any]:
    """The run's configuration, flat: dotted key → value; empty where there is none to read."""
    from omegaconf import OmegaConf

    try:
        cfg: Any = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "config.yaml"))
    except Exception:  # the folder's name is a label too
        return {}
    flat: dict[str, Any] = {}
    pending = [("", cfg)]
    while pending:
        prefix, value = pending.pop()
        if isinstance(value, dict) and value:
            pending += [(f"{prefix}.{key}".lstrip("."), part) for key, part in value.items()]
        else:
            flat[prefix] = value
    return flat


def label_of(config: dict[str, Any], folder: Path) -> str:
    """The run's own name, or energy, solver and data; the folder's name without a configuration."""
    parts = [config.get(f"{group}._target_") for group in ("model", "dynamics", "dataset")]
    if config.get("name") or None in parts:
        return str(config.get("name") or folder.resolve().name)
    model, solver, data = (str(part).rpartition(".")[2] for part in parts)
    return f"{model}, {solver} {config.get('dynamics.n_relax', '')}, {data}"


def told_apart(runs: Sequence[Run]) -> list[str]:
    """The labels; one that several runs have is followed by what differs between them."""
    labels = []
    for run in runs:
        twins = [other for other in runs if other.label == run.label and other is not run]
        keys = [
            key
            for key, value in sorted(run.config.items())
            if any(other.config.get(key) != value for other in twins)
        ]
        told = [f"{key.rpartition('.')[2]} {run.config[key]}" for key in keys[:MOST]]
        suffix = (told or [run.folder.resolve().name]) if twins else []
        labels.append(", ".join([run.label, *suffix]))
    return labels


def draw(runs: Sequence[Run], labels: Sequence[str], title: str, out: str) -> None:
    """Accuracy above, seconds an epoch below, each line labelled at its end."""
    plt = pyplot()
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(9, 6.2), sharex=True, height_ratios=(1.7, 1)
    )
    figure.subplots_adjust(left=0.06, right=0.7, top=0.94, bottom=0.08, hspace=0.2)
    accuracy_ends, seconds_ends = [], []
    for run, label, colour in zip(runs, labels, COLOURS * len(runs), strict=False):
        x, y = zip(*run.accuracy, strict=True)
        y = [100 * value for value in y]
        marker = "o" if len(x) < 25 else None
        top.plot(x, y, color=colour, marker=marker, ms=4)
        text = "\n".join([*textwrap.wrap(label, WRAP), f"best {100 * run.best:.2f} %"])
        accuracy_ends.append((x[-1], y[-1], text, colour))
        if run.seconds:
            x, y = zip(*run.seconds, strict=True)
            bottom.plot(x, y, color=colour, marker=marker, ms=4)
            middle = sorted(y)[len(y) // 2]
            seconds_ends.append((x[-1], y[-1], f"{middle:.3g} s (median)", colour))
    splits = " / ".join(dict.fromkeys(run.split for run in runs))
    top.set_title(title or f"Accuracy on the {splits} set, %", color=INK)
    bottom.set_title("Training time of an epoch, seconds", color=INK)
    bottom.set_xlabel("epoch")
    bottom.set_ylim(bottom=0)
    bottom.xaxis.get_major_locator().set_params(integer=True)
    lines = max(text.count("\n") + 1 for _, _, text, _ in accuracy_ends)
    label_ends(top, accuracy_ends, gap=0.02 + 0.05 * lines)
    label_ends(bottom, seconds_ends, gap=0.12)
    save(figure, out)
    plt.close(figure)


def main() -> None:
    args = arguments()
    folders = [Path(run) for run in args.runs]
    given = args.labels or [None] * len(folders)
    pairs = zip(folders, given, strict=True)
    runs = [read_run(folder, label, args.split) for folder, label in pairs]
    draw(runs, told_apart(runs), args.title, args.out)


if __name__ == "__main__":
    exit_cleanly(main)
