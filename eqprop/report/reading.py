"""One run as its folder tells of it, whether it is done, running, dead or damaged."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from eqprop.report import tolerant
from eqprop.report.tolerant import number, text_of, told
from eqprop.run.lock import is_alive

Points = tuple[list[float], list[float | None]]
"""Abscissae, ascending, and values; None where a value was not finite."""

FINE = ("done", "running", "pruned")
_MARKS = ("status.json", "metrics.jsonl", ".hydra", "curves.jsonl", "evaluation.json")


@dataclass
class Run:
    """What is known of a run.

    Attributes:
        folder: where it is; of a job that never made one, where it would be.
        state: running, done, failed, interrupted, pruned, killed (it says that it runs, and its
            process is dead) or unknown.
        reason: one line on why it is not done, if something tells.
        objective: finite, or None.
        config: the whole configuration, flat.
        overrides: what its command line changed.
        rows: of metrics.jsonl.
        relaxations: of curves.jsonl.
        evaluation: of evaluation.json, empty if there is none.
        problems: what could not be read, a line each.
    """

    folder: Path
    state: str = "unknown"
    reason: str | None = None
    objective: float | None = None
    status: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    relaxations: list[dict[str, Any]] = field(default_factory=list)
    evaluation: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    composed: bool = False
    """Whether ``config`` is the whole configuration rather than what the overrides say."""

    @property
    def failure(self) -> str | None:
        """Why it gave no result, None if it gave one or still may."""
        if self.state == "done" and self.objective is None:
            return self.reason or "ended without an objective"
        if self.state in FINE:
            return None
        return self.reason or "no reason was recorded"

    @property
    def seconds(self) -> float | None:
        """From its start to its end."""
        try:
            start, end = (datetime.fromisoformat(self.status[key]) for key in ("start", "end"))
            return (end - start).total_seconds()
        except (KeyError, TypeError, ValueError):
            return None

    @cached_property
    def metrics(self) -> dict[str, list[dict[str, Any]]]:
        """Name of a metric → the rows that have it; a row without a step or epoch has none."""
        found: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows:
            if number(row.get("step")) is None and number(row.get("epoch")) is None:
                continue
            for name, value in row.items():
                if name not in ("step", "epoch") and (value is None or _is_number(value)):
                    found.setdefault(name, []).append(row)
        return found

    @cached_property
    def last(self) -> dict[str, float | None]:
        """Each metric's last value."""
        return {name: number(rows[-1][name]) for name, rows in self.metrics.items()}

    @property
    def epochs(self) -> int:
        """How many epochs are whole."""
        rows = self.metrics.get("time/train_s", [])
        return int(max((number(row.get("epoch")) or 0 for row in rows), default=0))

    def best(self, name: str) -> float | None:
        """The greatest value of a metric."""
        values = [number(row[name]) for row in self.metrics.get(name, [])]
        return max((value for value in values if value is not None), default=None)

    def points(self, name: str, axis: str) -> Points:
        """A metric's curve over ``axis``, step or epoch; a later row of the same place wins."""
        found = {
            x: number(row[name])
            for row in self.metrics.get(name, [])
            if (x := number(row.get(axis))) is not None
        }
        places = sorted(found)
        return places, [found[x] for x in places]


def is_run(names: set[str]) -> bool:
    """Whether a folder that holds these files is a run's."""
    return not names.isdisjoint(_MARKS)


def read_run(folder: Path) -> Run:
    """Whatever the folder tells; nothing in it is relied upon."""
    run = Run(folder)
    run.rows = tolerant.read_lines(folder / "metrics.jsonl", run.problems)
    run.relaxations = tolerant.read_lines(folder / "curves.jsonl", run.problems)
    run.evaluation = tolerant.read_object(folder / "evaluation.json", run.problems) or {}
    run.environment = tolerant.read_object(folder / "environment.json", run.problems) or {}
    _read_config(run)
    _read_status(run)
    return run


def words_of(found: Any) -> list[str]:
    """The texts in a list of overrides, without secrets."""
    words = found if isinstance(found, list) else []
    return [told(word) for word in words if isinstance(word, str)]


def settings(overrides: list[str]) -> dict[str, Any]:
    """What overrides say of the configuration, where that is all that is known of a run."""
    found = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if equals and not key.startswith("~"):
            found[key.lstrip("+")] = tolerant.plain(tolerant.parse_yaml(value))
    return found


def _read_config(run: Run) -> None:
    hydra = run.folder / ".hydra"
    config = tolerant.read_yaml(hydra / "config.yaml", run.problems)
    words = tolerant.read_yaml(hydra / "overrides.yaml", run.problems)
    run.overrides = words_of(words)
    if isinstance(config, dict) and config:
        run.config, run.composed = tolerant.flatten(config), True
    else:
        run.config = settings(run.overrides)


def _read_status(run: Run) -> None:
    trouble: list[str] = []
    status = tolerant.read_object(run.folder / "status.json", trouble)
    run.problems += trouble
    run.status = status or {}
    state, reason = run.status.get("state"), run.status.get("reason")
    run.state = text_of(state) if isinstance(state, str) and state else "unknown"
    run.reason = told(reason) if isinstance(reason, str) and reason else None
    run.objective = number(run.status.get("objective"))
    if run.state not in ("running", "unknown"):
        return
    if is_alive(run.folder):
        run.state = "running"
    elif run.state == "running":
        run.state = "killed"
        who = " ".join(text_of(run.status.get(key, "?")) for key in ("pid", "host"))
        run.reason = f"its process ({who.replace(' ', ' on ', 1)}) is gone and recorded no end"
    elif run.reason is None:
        run.reason = trouble[0] if trouble else "it has no status.json that tells how it stands"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
