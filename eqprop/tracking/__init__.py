"""A run's record: the local metrics file, which is the truth, and trackers that show the same."""

from __future__ import annotations

from eqprop.tracking.base import RunInfo, State, Tracker, Trackers
from eqprop.tracking.jsonl import JsonlTracker
from eqprop.tracking.local import LocalFiles
from eqprop.tracking.tensorboard import TensorboardTracker
from eqprop.tracking.wandb import WandbTracker

__all__ = [
    "JsonlTracker",
    "LocalFiles",
    "RunInfo",
    "State",
    "TensorboardTracker",
    "Tracker",
    "Trackers",
    "WandbTracker",
]
