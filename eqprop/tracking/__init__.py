"""A run's record: its own files, which are the truth, and trackers that show the same."""

from eqprop.tracking.base import RunInfo, State, Tracker, Trackers
from eqprop.tracking.local import LocalFiles
from eqprop.tracking.tensorboard import TensorboardTracker
from eqprop.tracking.wandb import WandbTracker

__all__ = [
    "LocalFiles",
    "RunInfo",
    "State",
    "TensorboardTracker",
    "Tracker",
    "Trackers",
    "WandbTracker",
]
