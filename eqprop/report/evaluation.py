"""A run's confusion matrix and mistakes, as far as evaluation.json holds them."""

from __future__ import annotations

from typing import Any

from eqprop.report.tolerant import number, plain, text_of

_CLASSES, _MISTAKES = 200, 60


def evaluation_of(found: dict[str, Any]) -> dict[str, Any] | None:
    """What can be shown of it: ``confusion`` (rows: true classes), ``classes``, ``mistakes``."""
    confusion = _square(found.get("confusion"))
    mistakes = found.get("mistakes")
    mistakes = mistakes if isinstance(mistakes, list) else []
    rows = [_mistake(row) for row in mistakes if isinstance(row, dict) and row]
    if not confusion and not rows:
        return None
    classes = found.get("classes")
    names = [text_of(name) for name in classes] if isinstance(classes, list) else []
    if len(names) != len(confusion):
        names = [str(i) for i in range(len(confusion))]
    return {"confusion": confusion, "classes": names, "mistakes": rows[:_MISTAKES]}


def _square(rows: Any) -> list[list[float | None]]:
    """A square table of numbers, or nothing."""
    if not isinstance(rows, list) or not 0 < len(rows) <= _CLASSES:
        return []
    if not all(isinstance(row, list) and len(row) == len(rows) for row in rows):
        return []
    return [[number(value) for value in row] for row in rows]


def _mistake(row: dict[Any, Any]) -> dict[str, Any]:
    """Its plain values by name."""
    return {text_of(name): plain(value) for name, value in list(row.items())[:12]}
