"""Where a training begins: at its own checkpoint, at another run's weights, or anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eqprop.cli.device import rounding
from eqprop.config.schema import Config
from eqprop.run.checkpoint import Checkpoint, CheckpointError, read
from eqprop.run.errors import ConfigError
from eqprop.run.resume import Earlier, cut_metrics, is_file_name, take, warn_of_differences
from eqprop.run.text import show
from eqprop.training.load import find
from eqprop.training.session import Session
from eqprop.training.snapshot import restore, restore_weights


def begin(session: Session, source: Checkpoint | None, earlier: Earlier | None) -> None:
    """Put the training where its newest checkpoint was written, and the metrics with it.

    Without one it begins, from the weights of ``source`` if there is that.
    """
    start = None if earlier is None else take(earlier)
    if start is not None:
        restore(session, start)
        warn_of_differences(start.meta, rounding(session))
    elif source is not None:
        try:
            restore_weights(session.network, source)
        except CheckpointError as error:
            raise ConfigError(f"init_from: {error}") from error
    if earlier is not None:
        size = 0 if start is None else int(start.meta["metrics_bytes"])
        cut_metrics(earlier.folder / "metrics.jsonl", size)


def initial_weights(config: Config, earlier: Earlier | None) -> Checkpoint | None:
    """The checkpoint that ``init_from`` names; None where a run goes on, or has no such key.

    Raises ConfigError if there is none there.
    """
    if config.init_from is None or (earlier is not None and earlier.meta is not None):
        return None
    path = Path(config.init_from)
    try:
        return read(path) if is_file_name(path.name) else find(path)
    except CheckpointError as error:
        raise ConfigError(f"init_from={show(config.init_from)}: {error}") from error


def origin(source: Checkpoint | None, earlier: Earlier | None) -> Any:
    """Which checkpoint the first weights are of, as it is recorded; None: of none."""
    if source is None:
        known = earlier.meta if earlier is not None and earlier.meta is not None else {}
        return known.get("init_from")
    of_run = {key: source.meta.get(key) for key in ("run_id", "step")}
    return {"checkpoint": str(source.path.absolute()), **of_run}
