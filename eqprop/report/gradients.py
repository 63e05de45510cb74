"""What a gradient check has found, as tables and as a figure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from eqprop.report.figure import BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, pyplot, save

Report = Mapping[str, Any]
COLOURS = (RED, BLUE, GREEN, ORANGE, PINK, SKY, GREY)
LINES = ("o-", "s--", "^-.")
COLUMNS = ("cosine", "norm_ratio", "equal_signs", "relative_error")
SMALLEST = 1e-17  # a relative error that no precision resolves
FAR = 30.0  # a relative error: how much larger another one is says nothing


def heading(report: Report) -> str:
    """What was compared with what."""
    reference, n = report["reference"], report["batches"]
    batches = f"{n} batch{'es' if n > 1 else ''}, {report['samples']} samples"
    residual = reference["residual"]
    own = f" (residual {residual:.1e})" if residual else ""
    steps = ", ".join(f"{name} {count}" for name, count in report["steps"].items())
    return f"{report['dtype']}, {batches}, {steps}; reference: {reference['name']}{own}"


def parameters(report: Report) -> Table:
    """Each parameter's alignment, and that of the whole gradient, of each estimator."""
    table = _table("estimator", "parameter", *(name.replace("_", " ") for name in COLUMNS), "")
    for name, found in report["estimators"].items():
        for parameter, one in {**found["parameters"], "all": found["whole"]}.items():
            numbers = [_number(one[column], ".4g") for column in COLUMNS]
            table.add_row(_titled(name, found), parameter, *numbers, one["note"])
        table.add_section()
    return table


def sweep(report: Report, which: str, head: str) -> Table:
    """The whole gradient's error and its floor at each setting of a sweep, for each estimator."""
    table = _table("estimator", head, "error", "floor", "cosine")
    for name, found in report["estimators"].items():
        for point in found[which]:
            numbers = [_number(point[key], ".3g") for key in ("error", "floor")]
            table.add_row(name, f"{point['setting']:g}", *numbers, _number(point["cosine"], ".6f"))
        table.add_section()
    return table


def sentences(report: Report) -> Iterator[str]:
    """For each estimator what limits it, and the slope of its error."""
    for name, found in report["estimators"].items():
        yield f"{name}: {found['limit']['sentence']}"
        if found["beta_sweep"]:
            yield f"{name}: {slope(found)}"


def slope(found: Mapping[str, Any]) -> str:
    """The fitted slope beside the expected one, in words."""
    fit, expected = found["slope"]["fitted"], found["slope"]["expected"]
    beside = "" if expected is None else f" (expected {expected})"
    key = next(iter(found["strength"]))
    if fit is None:
        return f"no slope{beside}: fewer than three errors are clear of the floor"
    at = sorted(found["slope"]["at"], key=abs)
    return f"slope {fit:.2f}{beside}, fitted at {key} {at[0]:.3g} to {at[-1]:.3g}"


def draw(report: Report, path: str) -> None:
    """The error against β and against the steps, floors drawn in, into a file."""
    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    figure.suptitle("Relative error of the gradient")
    strengths, counts, known = set[str](), set[str](), []
    for number, (name, found) in enumerate(report["estimators"].items()):
        colour, line = COLOURS[number % len(COLOURS)], LINES[number // len(COLOURS) % len(LINES)]
        known += _draw(axes[0], found["beta_sweep"], colour, line, _label(name, found))
        _guide(axes[0], found, colour)
        label = "_" if found["beta_sweep"] else name  # it is in the legend already
        known += _draw(axes[1], found["step_sweep"], colour, line, label)
        strengths |= set(found["strength"] or ())
        if found["step_sweep"]:
            counts |= {f"{k.rpartition('.')[2]}={n}" for k, n in found["steps"].items()}
    axes[0].set_xlabel(f"strength of the nudge: {' or '.join(sorted(strengths)) or 'none'}")
    axes[1].set_xlabel(f"steps (configured: {', '.join(sorted(counts)) or 'none'})")
    if known:
        axes[0].set(xscale="log", yscale="log", ylim=(None, min(FAR, 2 * max(known))))
        axes[1].set_xscale("log", base=2)
        axes[1].xaxis.set_major_formatter("{x:g}")
        axes[0].plot(
            [], [], color=GREY, ls=":", label="floor, estimated:\n(residual + rounding) / β"
        )
        figure.legend(loc="outside right center", fontsize=8)
    save(figure, path)
    plt.close(figure)


def _draw(
    ax: Any, points: Sequence[Mapping[str, Any]], colour: str, line: str, label: str
) -> list[float]:
    """Errors and floors of a sweep; returns the errors."""
    x = [abs(point["setting"]) for point in points]
    errors = [_positive(point["error"]) for point in points]
    if points:
        ax.plot(x, errors, line, color=colour, ms=4, label=label)
        ax.plot(x, [_positive(p["floor"]) for p in points], ":", color=colour, lw=1)
    return [error for error in errors if math.isfinite(error)]


def _guide(ax: Any, found: Mapping[str, Any], colour: str) -> None:
    """The expected slope, through the smallest β of those that the fit is made from."""
    order, at = found["slope"]["expected"], sorted(map(abs, found["slope"]["at"]))
    if order is None or not at:
        return
    errors = {abs(point["setting"]): point["error"] for point in found["beta_sweep"]}
    low, high = at[0] / 2, min(2 * at[-1], max(errors))
    through = [errors[at[0]] * (x / at[0]) ** order for x in (low, high)]
    ax.plot([low, high], through, color=colour, lw=6, alpha=0.2, zorder=1)


def _label(name: str, found: Mapping[str, Any]) -> str:
    fit, expected = found["slope"]["fitted"], found["slope"]["expected"]
    parts = [] if fit is None else [f"slope {fit:.2f}"]
    parts += [] if expected is None else [f"expected {expected}"]
    return f"{name}: {', '.join(parts)}" if parts else name


def _titled(name: str, found: Mapping[str, Any]) -> str:
    setting = found["strength"] or {}
    return " ".join([name, *(f"{key}={value:g}" for key, value in setting.items())])


def _table(*heads: str) -> Table:
    table = Table(*heads, box=SIMPLE_HEAD)
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[1 + (heads[1] == "parameter") :]:
        column.justify = "right"
    return table


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _positive(value: float | None) -> float:
    """For a logarithmic axis: a gap where there is no number."""
    return math.nan if value is None else max(value, SMALLEST)
