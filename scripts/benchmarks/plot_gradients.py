"""All estimators on trained networks, in one figure: error against β, cosine against steps, time.

    python scripts/benchmarks/plot_gradients.py RUN RUN --titles dense conv --out docs/gradients.png

Everything is measured by scripts/gradient_check.py, in float64 and on one batch of each run's data,
against implicit differentiation. An estimator that a network has no gradient for is left out, with
its reason as a line. Of bptt, the steps are those that it differentiates. Times are of one estimate
as a training takes it, over that of ``ep``.
"""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path
from typing import Any

from eqprop.cli.gradient_comparison import Request, gradient_check
from eqprop.report.figure import BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, pyplot, save
from eqprop.run.errors import UserError
from eqprop.run.streams import exit_cleanly

LOOKS = {
    "ep": (RED, "-o"),
    "ep_centered": (BLUE, "-o"),
    "ep_random_sign": (RED, ":s"),
    "ep_fourpoint": (GREEN, "-o"),
    "holomorphic": (PINK, "-o"),
    "coupled": (SKY, "-^"),
    "contrastive": (GREY, "-^"),
    "asymmetric": (ORANGE, "--s"),
    "dual_propagation": (ORANGE, "-v"),
    "bptt": (BLUE, ":d"),
    "backprop": (GREY, "-d"),
    "continual": (RED, "--^"),
}
"""Colour, line and marker of each estimator; continual without moving weights is ep."""
STEPS = (1, 2, 4, 8, 16, 32)
LEAST = 1e-16


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder")
    add("--titles", nargs="+", help="one for each run (default: its folder)")
    add("--overrides", default="", help="on top of all runs, in one word, parted by blanks")
    add("--out", required=True, metavar="PATH", help="the figure to write, .png, .svg or .pdf")
    return parser.parse_args()


def measured(run: Path, words: list[str]) -> dict[str, Any]:
    """Estimator → what a check finds of it."""
    found: dict[str, Any] = {}
    for name in LOOKS:
        request = Request(
            words=["device.dtype=float64", *words],
            run=str(run),
            estimators=[name],
            batches=1,
            steps=STEPS,
        )
        try:
            found |= gradient_check(request)["estimators"]
        except UserError as error:
            print(f"{run.name}: {name} is left out: {error}")
    return found


def draw(all_found: list[dict[str, Any]], titles: list[str], out: str) -> None:
    plt = pyplot()
    height = 3.6 * len(titles) + 0.6
    figure, rows = plt.subplots(
        len(titles), 3, figsize=(11, height), squeeze=False, layout="constrained"
    )
    for (error, cosine, time), found, title in zip(rows, all_found, titles, strict=True):
        for name, one in found.items():
            colour, look = LOOKS[name]
            how = {"color": colour, "ms": 4, "label": name}
            if points := one["beta_sweep"]:
                error.loglog(
                    [abs(p["setting"]) for p in points],
                    [positive(p["error"]) for p in points],
                    look,
                    **how,
                )
            if points := one["step_sweep"]:
                off = [positive(None if p["cosine"] is None else 1 - p["cosine"]) for p in points]
                cosine.loglog([p["setting"] for p in points], off, look, **how)
        names = list(found)[::-1]
        base = found["ep"]["seconds"]
        ratios = [found[name]["seconds"] / base for name in names]
        time.barh(names, ratios, color=[LOOKS[name][0] for name in names])
        time.set_xlim(0, 1.2 * max(ratios))
        for i, ratio in enumerate(ratios):
            time.text(ratio, i, f" {ratio:.2g}", va="center", fontsize=8)
        error.set(title="relative error", xlabel="β, or radius", ylabel=title)
        cosine.set(title="1 − cosine", xlabel="steps of a nudged phase")
        cosine.set_xscale("log", base=2)
        cosine.xaxis.set_major_formatter("{x:g}")
        time.set(title="time of an estimate", xlabel=f"over that of ep, {1e3 * base:.0f} ms")
    handles = {
        text: handle
        for row in rows
        for ax in row[:2]
        for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=6, fontsize=8, frameon=False
    )
    save(figure, out)
    plt.close(figure)


def positive(value: float | None) -> float:
    """For a logarithmic axis."""
    return math.nan if value is None else max(value, LEAST)


def main() -> None:
    args = arguments()
    titles = args.titles or [run.name for run in args.runs]
    if len(titles) != len(args.runs):
        raise UserError(f"--titles: {len(titles)} titles for {len(args.runs)} runs")
    logging.basicConfig(format="warning: %(message)s", level=logging.ERROR)
    draw([measured(run, args.overrides.split()) for run in args.runs], titles, args.out)


if __name__ == "__main__":
    exit_cleanly(main)
