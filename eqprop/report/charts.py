"""What a page draws beside the curves: parallel coordinates, relaxations, mistakes."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from typing import Any

from eqprop.report.curves import evenly, significant, spreads_widely
from eqprop.run.reading import Run, read_lines, read_object, read_pictures
from eqprop.run.text import number, plain, told, yaml_word

MISSING = "–"
MISTAKES = "mistakes/test"  # the name of the picture that shows them
_RELAXATIONS, _STEPS = 7, 400  # curves of a phase, and points of each
# from early to late, each legible on white and on black
_EARLY_TO_LATE = ("#4c78d8", "#2f9bb8", "#2fa57a", "#7da52f", "#c79a1c", "#dc7a2a", "#d4504a")


def label(text: object) -> str:
    """What plotly shows as this text: it reads a little HTML."""
    return escape(str(text), quote=False)


def dimension(title: str, values: Sequence[Any]) -> dict[str, Any]:
    """One axis of the parallel coordinates: the place of each value, and what is written there.

    ``names`` are the words of the places 0, 1, …; ``log`` tells that the places are logarithms.
    """
    axis: dict[str, Any] = {"label": label(title), "log": False}
    numbers = [value for value in values if number(value) is not None]
    if len(numbers) < len(values):
        words = [MISSING if value is None else yaml_word(value) for value in values]
        names = sorted(set(words))
        texts = [label(name.rpartition(".")[2][:18] or name[:18]) for name in names]
        axis |= {"values": [names.index(word) for word in words], "names": names}
        return axis | {"tickvals": [*range(len(names))], "ticktext": texts,
                       "range": [-0.5, len(names) - 0.5]}  # fmt: skip
    if spreads_widely(numbers, 20):
        least, most = min(numbers), max(numbers)
        decades = range(math.floor(math.log10(least)), math.floor(math.log10(most)) + 1)
        marks = [float(f"{digit}e{decade}") for decade in decades for digit in (1, 3)]
        ticks = [mark for mark in marks if least <= mark <= most]  # a brush snaps to them
        axis |= {"log": True, "ticktext": [f"{mark:g}" for mark in ticks]}
        axis |= {"tickvals": [math.log10(mark) for mark in ticks]}
        numbers = [math.log10(value) for value in numbers]
    room = 0.05 * (max(numbers) - min(numbers)) or 0.5
    return axis | {"values": numbers, "range": [min(numbers) - room, max(numbers) + room]}


Phases = dict[str, list[dict[str, Any]]]
"""Title → a trace of plotly for each curve, the oldest first."""


def relaxations(run: Run) -> list[tuple[str, dict[str, Any]]]:
    """Title and plotly figure of each phase's energies and residuals against its steps."""
    phases = _phases(run, run.problems)
    return [(title, _figure(traces)) for title, traces in phases.items() if _moves(traces)]


def still(run: Run) -> list[tuple[str, list[float | None]]]:
    """Of phases that make no steps, title and values, one a curve."""
    phases = {title: traces for title, traces in _phases(run, []).items() if not _moves(traces)}
    return [(title, [y for t in traces for y in t["y"]]) for title, traces in phases.items()]


def _phases(run: Run, problems: list[str]) -> Phases:
    found: Phases = {}
    for row in read_lines(run.folder / "curves.jsonl", problems):
        epoch, step = (plain(row.get(key)) for key in ("epoch", "step"))
        for name in ("energy", "residual"):
            values = row.get(name, ())
            places = evenly(range(len(values)), _STEPS)
            curve = [significant(number(values[place])) for place in places]
            title = f"{name}, {told(row.get('phase', 'free'))} phase"
            trace = {"x": list(places), "y": curve, "name": label(epoch),
                     "text": label(f"epoch {epoch}, step {step}")}  # fmt: skip
            found.setdefault(title, []).append(trace)
    return found


def _moves(traces: Sequence[dict[str, Any]]) -> bool:
    return any(len(trace["x"]) > 1 for trace in traces)


def _figure(every: Sequence[dict[str, Any]]) -> dict[str, Any]:
    traces = evenly(every, _RELAXATIONS)
    known = [value for trace in traces for value in trace["y"] if value is not None]
    some = f" ({len(traces)} of {len(every)})" if len(traces) < len(every) else ""
    return {
        "data": traces,
        "layout": {
            "colorway": evenly(_EARLY_TO_LATE, max(len(traces), 2)),
            "showlegend": True,
            "legend": {"title": {"text": f"epoch{some}", "side": "top"}, "orientation": "h",
                       "y": 1.02, "yanchor": "bottom"},
            "xaxis": {"title": {"text": "relaxation step"}},
            "yaxis": {"type": "log" if spreads_widely(known) else "linear"},
        },
    }  # fmt: skip


def pictures(run: Run) -> list[tuple[str, str]]:
    """Title and data address of each picture, the mistakes' apart."""
    found = _addresses(run, run.problems)
    return [(name.replace("/", ", layer "), found[name]) for name in found if name != MISTAKES]


def _addresses(run: Run, problems: list[str]) -> dict[str, str]:
    return {
        name: f"data:image/png;base64,{b64encode(data).decode()}"
        for name, data in read_pictures(run.folder, problems).items()
    }


def details(run: Run) -> dict[str, Any]:
    """How a run's phases relaxed, its pictures and what it mistook, as far as its folder tells.

    ``sheet`` is the address of one picture with all the mistakes side by side, in their order.
    """
    found = read_object(run.folder / "evaluation.json", run.problems)
    classes = [told(name) for name in found.get("classes", ())]
    return {
        "relaxations": relaxations(run),
        "still": still(run),
        "sheet": _addresses(run, []).get(MISTAKES),
        "pictures": pictures(run),
        "confusion": list(zip(classes, found.get("confusion", ()), strict=False)),
        "mistakes": [{k: plain(v) for k, v in row.items()} for row in found.get("mistakes", ())],
    }
