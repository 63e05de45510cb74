"""The session of an earlier run, built anew from what its checkpoint says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from eqprop.cli.build import build_session
from eqprop.config.validation import validate
from eqprop.run.checkpoint import Checkpoint
from eqprop.training.load import refuse_foreign
from eqprop.training.session import Session

HERE: dict[str, Any] = {
    **{"device.type": "auto", "device.index": 0, "device.cuda_graph": "auto"},
    "tracking.trackers": {},
}
"""What a run's machine decided, and this one decides anew."""


def session_of_run(found: Checkpoint, changes: Mapping[str, Any]) -> Session:
    """The run's data, network, solver and estimator, its weights as they were initialised.

    Args:
        found: a checkpoint of the run.
        changes: settings that take the place of the run's, by their dotted keys.

    Raises:
        CheckpointError: if it names code that is no part of a training.
    """
    refuse_foreign(found)
    cfg = OmegaConf.create(found.meta["config"])
    for key, value in {**HERE, **changes}.items():
        OmegaConf.update(cfg, key, value, merge=False)
    plain: Any = OmegaConf.to_container(cfg)
    return build_session(cfg, validate(plain))
