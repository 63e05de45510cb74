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
_RELAXATIONS, _STEPS = 7, 400  # curves of a phase, and points of each
_EARLY_TO_LATE = ("#b5d96b", "#7fc487", "#4bae93", "#1c8f8f", "#177288", "#28567d", "#3b3a72")


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


def relaxations(run: Run) -> list[tuple[str, dict[str, Any]]]:
    """Title and plotly figure of each phase's energies and residuals against its steps."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in read_lines(run.folder / "curves.jsonl", run.problems):
        when = ", ".join(f"{key} {plain(row.get(key))}" for key in ("epoch", "step"))
        for name in ("energy", "residual"):
            values = row.get(name, ())
            places = evenly(range(len(values)), _STEPS)
            curve = [significant(number(values[place])) for place in places]
            title = f"{name}, {told(row.get('phase', 'free'))} phase"
            trace = {"x": list(places), "y": curve, "name": label(when)}
            found.setdefault(title, []).append(trace)
    return [(title, _figure(evenly(traces, _RELAXATIONS))) for title, traces in found.items()]


def _figure(traces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    known = [value for trace in traces for value in trace["y"] if value is not None]
    return {
        "data": traces,
        "layout": {
            "colorway": evenly(_EARLY_TO_LATE, max(len(traces), 2)),
            "showlegend": True,
            "xaxis": {"title": {"text": "relaxation step"}},
            "yaxis": {"type": "log" if spreads_widely(known) else "linear"},
        },
    }


def pictures(run: Run) -> list[tuple[str, str]]:
    """Title and data address of each picture."""
    return [
        (name.replace("/", ", layer "), f"data:image/png;base64,{b64encode(data).decode()}")
        for name, data in read_pictures(run.folder, run.problems).items()
    ]


def details(run: Run) -> dict[str, Any]:
    """How a run's phases relaxed, its pictures and what it mistook, as far as its folder tells."""
    found = read_object(run.folder / "evaluation.json", run.problems)
    classes = [told(name) for name in found.get("classes", ())]
    return {
        "relaxations": relaxations(run),
        "pictures": pictures(run),
        "confusion": list(zip(classes, found.get("confusion", ()), strict=False)),
        "mistakes": [{k: plain(v) for k, v in row.items()} for row in found.get("mistakes", ())],
    }
