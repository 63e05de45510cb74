"""Resuming a run: its recorded settings, what may change, and which checkpoint to start from."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eqprop.run import checkpoint
from eqprop.run.checkpoint import Checkpoint, CheckpointError
from eqprop.run.errors import ConfigError
from eqprop.run.lock import read_status
from eqprop.run.text import flatten, show

log = logging.getLogger(__name__)

# settings that a resumed run may change; any other affects the result
_FREE = (
    *("trainer", "diagnostics", "tracking", "paths", "checkpoint", "name", "device"),
    *("resume", "rerun", "sweep", "chosen"),
)
_FREE_KEYS = ("dataset.download",)
_FIXED_KEYS = ("device.dtype", "trainer.limit_batches")
_ASIDE = ".aside"


@dataclass(frozen=True)
class Earlier:
    """What an earlier process left of the run in ``folder``."""

    folder: Path
    status: dict[str, Any]
    meta: dict[str, Any] | None  # the plain part of its newest checkpoint that can be read
    named: Path | None = None  # a checkpoint that was asked for by name

    def is_finished(self, epochs: int) -> bool:
        """Whether the run is done and has nothing left of so many epochs."""
        if self.named is not None or self.meta is None or self.status.get("state") != "done":
            return False
        return bool(self.meta.get("stopped")) or int(self.meta.get("epoch", 0)) > epochs

    @property
    def objective(self) -> float:
        """The recorded objective; NaN if there is none."""
        found = self.status.get("objective")
        return math.nan if found is None else float(found)


def earlier_run(folder: Path, resume: str | None, config: Mapping[str, Any]) -> Earlier | None:
    """What there is in ``folder`` to resume, or None for a run that begins.

    Raises:
        ConfigError: if ``resume`` names what is not there, or if ``config`` changes what a resumed
            run may not change: each such key, old and new.
    """
    if resume is None or (resume == "auto" and not (folder / "status.json").exists()):
        return None
    named = folder / "checkpoints" / Path(resume).name if is_file_name(resume) else None
    newest, _ = newest_valid(folder, named)
    meta = None if newest is None else newest.meta
    if meta is not None and (changes := _changes(meta.get("config", {}), config)):
        raise ConfigError(
            f"resume={folder}: a resumed run cannot change {changes}; leave that out, or start a "
            f"new run with rerun={folder}"
        )
    return Earlier(folder, read_status(folder) or {}, meta, named)


def is_file_name(resume: str) -> bool:
    """Whether ``resume`` names a checkpoint rather than a run's folder."""
    return resume.endswith(".pt")


def refuse_other_defaults(folder: Path, new: Mapping[str, Any]) -> None:
    """Raise ConfigError if the recorded command no longer makes the recorded configuration."""
    old = read_yaml(folder / ".hydra" / "config.yaml")
    if isinstance(old, Mapping) and (changes := _changes(old, new)):
        how = "give these keys on the command line, or restore the files"
        raise ConfigError(
            f"rerun={folder}: the files of the configuration have changed since: {changes}; {how}"
        )


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    found = [change for change in differences(old, new) if not _is_free(change[0])]
    return ", ".join(f"{key} ({show(then)} → {show(now)})" for key, then, now in found)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, None if it is not there. Raises ConfigError if it cannot be read."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read ({show(str(error))})") from error


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Each dotted key whose value differs, with both values; None stands for none."""
    flat = (flatten(json.loads(json.dumps(c))) for c in (old, new))
    then, now = ({key: value for key, value in leaves if value != {}} for leaves in flat)
    keys = dict.fromkeys([*then, *now])
    return [(k, then.get(k), now.get(k)) for k in keys if then.get(k) != now.get(k)]


def newest_valid(
    folder: Path, named: Path | None = None
) -> tuple[Checkpoint | None, list[CheckpointError]]:
    """The newest checkpoint that is whole (None: none yet), and what is wrong with broken ones.

    Raises:
        CheckpointError: if the one that was named is broken, or all of them are.
    """
    if named is not None:
        return checkpoint.read(named), []
    newest: Checkpoint | None = None
    broken: list[CheckpointError] = []
    for path in _files(folder):
        try:
            found = checkpoint.read(path)
        except CheckpointError as error:
            broken.append(error)
        else:
            newest = found if newest is None or found.place > newest.place else newest
    if broken and newest is None:
        raise CheckpointError(
            f"{broken[0]}; there is no other one to fall back on: remove {folder / 'checkpoints'} "
            "to begin again"
        )
    return newest, broken


def take(earlier: Earlier) -> Checkpoint | None:
    """The checkpoint to continue from; later and broken ones are set aside.

    The caller holds the folder's lock. Raises CheckpointError as ``newest_valid`` does.
    """
    chosen, broken = newest_valid(earlier.folder, earlier.named)
    if chosen is None:
        return None
    for error in broken:
        log.warning("%s; another checkpoint is used", error)
    for path in _files(earlier.folder):
        with contextlib.suppress(CheckpointError):
            if checkpoint.read(path).place <= chosen.place:
                continue
        path.replace(path.with_name(path.name + _ASIDE))
    return chosen


def cut_metrics(path: Path, size: int) -> None:
    """Cut ``metrics.jsonl`` back to the rows that a checkpoint knows of, dropping a torn line."""
    if not path.exists():
        if size:
            log.warning("%s is gone: the rows before the checkpoint are lost", path)
        return
    with open(path, "r+b") as file:
        if path.stat().st_size < size:
            log.warning("%s is shorter than the checkpoint says: some rows are lost", path)
            size = file.read().rfind(b"\n") + 1
        file.truncate(size)
        os.fsync(file.fileno())


def warn_of_differences(meta: Mapping[str, Any], rounding: Mapping[str, Any]) -> None:
    """Warn of what may change the last digits since the checkpoint was written.

    ``rounding`` is the present state of what the checkpoint's ``meta`` holds under the same names.
    """
    from eqprop.run.environment import versions  # loads psutil, which no mistake should wait for

    found, old = versions(), {**meta.get("versions", {}), **meta}
    now = {name: found[name] for name in ("python", "eqprop", "torch", "numpy")} | dict(rounding)
    changed = [
        f"{name} {show(old[name])} → {show(value)}"
        for name, value in now.items()
        if name in old and old[name] != value
    ]
    if changed:
        log.warning("the last digits may differ from an uninterrupted run: %s", ", ".join(changed))


def _is_free(key: str) -> bool:
    return key in _FREE_KEYS or (key.partition(".")[0] in _FREE and key not in _FIXED_KEYS)


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in (folder / "checkpoints").glob("*.pt") if p.name != "best.pt")
