"""How the project's figures look: light, legible, and safe for the colour-blind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eqprop.run.errors import UserError

# Okabe & Ito (2008), without the yellow, which is too light for lines.
BLUE, ORANGE, GREEN, RED, PINK, SKY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
)
INK, GREY, LIGHT = "#222222", "#707070", "#dddddd"
COLOURS = (BLUE, RED, GREEN, PINK, ORANGE, SKY)

_STYLE: dict[str, Any] = {
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#ececec",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
}


def pyplot() -> Any:
    """matplotlib.pyplot, without a window and in this project's style.

    Raises:
        UserError: if matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise UserError("figures need matplotlib: pip install 'eqprop[report]'") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(_STYLE)
    return plt


def save(figure: Any, path: str) -> None:
    """Write the figure; a folder that is not there is made.

    Raises:
        UserError: if it cannot be written, or its ending is no image format.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {path}: {reason}") from error
    print(f"wrote {path}")


def label_ends(ax: Any, ends: Sequence[tuple[float, float, str, str]], gap: float = 0.06) -> None:
    """Write a label beside the end (x, y) of each line, moved apart where they would overlap.

    Args:
        ax: the axes, its limits final.
        ends: x, y, text, colour of each.
        gap: least distance between two labels, as a fraction of the axes' height.
    """
    to_axes = ax.transData + ax.transAxes.inverted()
    placed = sorted((float(to_axes.transform((x, y))[1]), x, y, t, c) for x, y, t, c in ends)
    heights = _apart([p[0] for p in placed], gap)
    for height, (_, x, y, text, colour) in zip(heights, placed, strict=True):
        ax.annotate(
            text,
            xy=(x, y),
            xycoords="data",
            xytext=(1.02, height),
            textcoords="axes fraction",
            va="center",
            color=colour,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "lw": 0.6,
                "alpha": 0.5,
                "shrinkB": 2,
                "relpos": (0, 0.5),
            },
        )


def _apart(heights: list[float], gap: float) -> list[float]:
    """Heights, ascending, moved as little as needed to lie ``gap`` apart and inside the axes."""
    groups: list[list[float]] = []  # each: its members' wished-for heights
    for height in heights:
        groups.append([height])
        while len(groups) > 1 and _top(groups[-2], gap) + gap > _bottom(groups[-1], gap):
            last = groups.pop()
            groups[-1] += last
    return [_bottom(group, gap) + i * gap for group in groups for i in range(len(group))]


def _bottom(group: list[float], gap: float) -> float:
    height = gap * (len(group) - 1)
    wished = sum(group) / len(group) - height / 2
    return max(min(wished, 1.0 - height), 0.0)


def _top(group: list[float], gap: float) -> float:
    return _bottom(group, gap) + gap * (len(group) - 1)
