"""What a run left in its folder, in whatever state it is: the only reader of these files.

Any of them may be missing, torn, damaged or hostile. Nothing here fails on that or trusts what it
finds: what could not be read is said in a list of ``problems``, a line each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from eqprop.run.lock import is_alive
from eqprop.run.text import flatten, number, one_line, plain, told

Points = tuple[list[float], list[float | None]]
"""Abscissae, ascending, and values; None where a value was not finite."""

FINE = ("done", "running", "pruned")
_FILES = ("status.json", "metrics.jsonl", ".hydra", "curves.jsonl", "evaluation.json")
_MOST_KEYS = 2000
_PNG = b"\x89PNG\r\n\x1a\n"
_MOST_PICTURES, _LARGEST_PICTURE = 8, 2_000_000  # bytes


@dataclass
class Run:
    """What is known of the run in ``folder``; of a job that never made one, where it would be."""

    folder: Path
    state: str = "unknown"
    """Running, done, failed, interrupted, pruned, killed (its process died silently) or unknown."""
    reason: str | None = None  # one line on why it is not done, if something tells
    objective: float | None = None  # finite
    status: dict[str, Any] = field(default_factory=dict)  # what status.json says
    config: dict[str, Any] = field(default_factory=dict)
    """Dotted key → number, truth value, None or one line."""
    composed: bool = False  # config is the whole configuration, not only what the overrides say
    overrides: list[str] = field(default_factory=list)  # the words of its command line
    rows: list[dict[str, Any]] = field(default_factory=list)  # of metrics.jsonl
    problems: list[str] = field(default_factory=list)  # what could not be read, a line each

    @property
    def failure(self) -> str | None:
        """Why it gave no result, None if it gave one or still may."""
        if self.state == "done" and self.objective is None:
            return self.reason or "ended without an objective"
        return None if self.state in FINE else self.reason or "no reason was recorded"

    @property
    def seconds(self) -> float | None:
        """How long its processes worked; of an older record, from its start to its end."""
        worked = number(self.status.get("seconds"))
        if worked and self.status.get("end") is not None:
            return worked
        try:
            start, end = (datetime.fromisoformat(self.status[key]) for key in ("start", "end"))
            return (end - start).total_seconds()
        except (KeyError, TypeError, ValueError):
            return None

    @cached_property
    def metrics(self) -> dict[str, list[dict[str, Any]]]:
        """Name of a metric → the rows that have it and a step or an epoch."""
        found: dict[str, list[dict[str, Any]]] = {}
        for row in self.rows:
            if number(row.get("step")) is None and number(row.get("epoch")) is None:
                continue
            for name, value in row.items():
                is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
                if name not in ("step", "epoch") and (value is None or is_number):
                    found.setdefault(name, []).append(row)
        return found

    @cached_property
    def last(self) -> dict[str, float | None]:
        """Each metric's last value."""
        return {name: number(rows[-1][name]) for name, rows in self.metrics.items()}

    @property
    def epochs(self) -> int:
        """How many epochs it has finished."""
        rows = self.metrics.get("time/train_s", [])
        return int(max((number(row.get("epoch")) or 0 for row in rows), default=0))

    @cached_property
    def selected(self) -> dict[str, Any]:
        """The first row with the best validation accuracy, or test accuracy where none is held out.

        Empty where nothing was evaluated: what it has is all of one epoch's model.
        """
        found = self.metrics.get("accuracy/validation") or self.metrics.get("accuracy/test", [])
        by = "accuracy/validation" if "accuracy/validation" in self.metrics else "accuracy/test"
        rows = [row for row in found if number(row[by]) is not None]
        return max(rows, key=lambda row: float(row[by]), default={})

    def best(self, name: str) -> float | None:
        """A metric of the selected epoch; None where it was not measured there."""
        return number(self.selected.get(name))

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
    return not names.isdisjoint(_FILES)


def read_run(folder: Path) -> Run:
    """Whatever the folder tells of its run."""
    run = Run(folder)
    run.rows = read_lines(folder / "metrics.jsonl", run.problems)
    config = _read_yaml(folder / ".hydra" / "config.yaml", run.problems)
    words = _read_yaml(folder / ".hydra" / "overrides.yaml", run.problems)
    if isinstance(words, list):
        run.overrides = [str(plain(word)) for word in words if isinstance(word, str)]
    run.composed = isinstance(config, dict) and bool(config)
    # of a tree beyond all measure, the first leaves
    leaves = islice(flatten(config), _MOST_KEYS) if run.composed else _settings(run.overrides)
    run.config = {one_line(key, 300): plain(value) for key, value in leaves}
    _read_status(run)
    return run


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl that are whole and have a step, oldest first.

    A number that was not finite is None.
    """
    rows = read_lines(folder / "metrics.jsonl", [])
    return [row for row in rows if isinstance(row.get("step"), int)]


def read_object(path: Path, problems: list[str]) -> dict[str, Any]:
    """The JSON object in a file, empty if there is none."""
    found = _read_bytes(path, problems)
    value = None if found is None else _parse(found)
    if found is not None and not isinstance(value, dict):
        problems.append(f"{path.name}: is no JSON object")
    return value if isinstance(value, dict) else {}


def read_lines(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line; lines that hold none are left out.

    A last line without its end is a line being written. Others are counted in ``problems``.
    """
    lines = (_read_bytes(path, problems) or b"").split(b"\n")
    found = [_parse(line) for line in lines if line.strip()]
    whole = [value for value in found if isinstance(value, dict)]
    torn = bool(found) and bool(lines[-1].strip()) and not isinstance(found[-1], dict)
    wrong = len(found) - len(whole) - torn
    if wrong:
        problems.append(f"{path.name}: {wrong} line{'s' * (wrong > 1)} left out, no JSON object")
    return whole


def read_pictures(folder: Path, problems: list[str]) -> dict[str, bytes]:
    """The files ``pictures/*/*.png`` of a run, by the names that they were shown under."""
    found = {}
    for path in islice(sorted(folder.glob("pictures/*/*.png")), _MOST_PICTURES):
        data = _read_bytes(path, problems)
        if data is not None and data.startswith(_PNG) and len(data) <= _LARGEST_PICTURE:
            found[one_line(f"{path.parent.name}/{path.stem}", 60)] = data
        elif data is not None:
            problems.append(f"{path.name}: is no PNG picture of a run")
    return found


def _settings(overrides: list[str]) -> Iterator[tuple[str, Any]]:
    """What overrides say of the configuration, where that is all that is known of a run."""
    for word in overrides:
        key, equals, value = word.partition("=")
        if equals and not key.startswith("~"):
            yield key.lstrip("+"), _parse_yaml(value)


def _read_status(run: Run) -> None:
    trouble: list[str] = []
    run.status = read_object(run.folder / "status.json", trouble)
    run.problems += trouble
    state, reason = run.status.get("state"), run.status.get("reason")
    run.state = told(state) if isinstance(state, str) and state else "unknown"
    run.reason = told(reason) if isinstance(reason, str) and reason else None
    run.objective = number(run.status.get("objective"))
    if run.state not in ("running", "unknown"):
        return
    if is_alive(run.folder):
        run.state = "running"
    elif run.state == "running":
        run.state = "killed"
        pid, host = (told(run.status.get(key, "?")) for key in ("pid", "host"))
        run.reason = f"its process ({pid} on {host}) is gone and recorded no end"
    elif run.reason is None:
        run.reason = trouble[0] if trouble else "it has no status.json that tells how it stands"


def _read_bytes(path: Path, problems: list[str]) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        problems.append(f"{path.name}: {error.strerror or error}")
        return None


def _read_yaml(path: Path, problems: list[str]) -> Any:
    found = _read_bytes(path, problems)
    value = None if found is None else _parse_yaml(found)
    if found and found.strip() and value is None:
        problems.append(f"{path.name}: is no YAML")
    return value


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _parse_yaml(text: bytes | str) -> Any:
    import yaml

    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return None
