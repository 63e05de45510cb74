"""How far a running job has come, read from what it has written so far."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from eqprop.sweep.outcome import tail

_TAIL = 8192  # bytes of metrics.jsonl: a few rows
_ACCURACIES = ("accuracy/validation", "accuracy/test", "accuracy/train")


@dataclass(frozen=True)
class Glance:
    """The epoch that a job has finished, of how many, and its newest accuracy, if known."""

    epoch: int = 0
    epochs: int | None = None
    accuracy: float | None = None


def look(folder: Path, epochs: int | None = None) -> Glance:
    """Look at the job in ``folder``; ``epochs`` where they are known already."""
    epoch, accuracy = 0, None
    for line in tail(folder / "metrics.jsonl", _TAIL).splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # half a row: cut off at the front, or being written at the end
            continue
        if not isinstance(row, dict) or "time/train_s" not in row:
            continue
        epoch = int(row.get("epoch", epoch))
        found = [row[name] for name in _ACCURACIES if isinstance(row.get(name), float)]
        accuracy = found[0] if found else accuracy
    return Glance(epoch, _epochs(folder) if epochs is None else epochs, accuracy)


def _epochs(folder: Path) -> int | None:
    """How many the job's own configuration asks for; None while that is not written."""
    try:
        text = (folder / ".hydra" / "config.yaml").read_text(encoding="utf-8")
        return int(yaml.safe_load(text)["trainer"]["epochs"])
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return None
