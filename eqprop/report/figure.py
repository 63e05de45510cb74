"""Figures as files, in the project's style."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eqprop.run.errors import UserError

BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
RED, PINK, SKY = "#D55E00", "#CC79A7", "#56B4E9"
INK, GREY, LIGHT = "#222222", "#707070", "#dddddd"


def pyplot() -> Any:
    """matplotlib.pyplot, without a window and in this project's style; UserError without it."""
    try:
        import matplotlib
    except ImportError as error:
        raise UserError("figures need matplotlib: pip install 'eqprop[report]'") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.style.use("eqprop.report.figure")
    return plt


def save(figure: Any, path: str) -> None:
    """Write the figure, and make its folder; UserError if that fails or the suffix is unknown."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write {path}: {reason}") from error
    print(f"wrote {path}")
