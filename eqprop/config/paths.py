"""Folders as people write them: with ``~`` and environment variables."""

from __future__ import annotations

import os

from omegaconf import DictConfig, OmegaConf

from eqprop.run.paths import expanded
from eqprop.run.text import key_of, quoted

KEYS = (
    *("paths.data", "paths.outputs", "resume", "rerun", "init_from"),
    *("hydra.run.dir", "hydra.sweep.dir"),
)
"""The keys that name folders or files."""

_FLAGS = ("--config-dir", "-cd", "--config-path", "-cp")


def in_home(word: str) -> str:
    """A word of a command line whose path begins with ``~``, which Hydra's grammar has no room for.

    Shells replace it at the beginning of a word only.
    """
    head, _, value = word.partition("=")
    if not value.startswith("~") or key_of(word) not in (*KEYS, *_FLAGS):
        return word
    found = expanded(value, head)
    return f"{head}={found if head in _FLAGS else quoted(found)}"


def words(cfg: DictConfig) -> list[str]:
    """Overrides that give a composed configuration's paths with nothing in them to replace.

    Where a run works in its own folder, relative ones are made absolute: they are meant from the
    folder of the command.
    """
    plain = OmegaConf.to_container(cfg, resolve=False)
    moves = OmegaConf.select(cfg, "hydra.job.chdir")
    found = []
    for key in KEYS:
        value = plain
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not isinstance(value, str) or value in ("", "auto", "???"):
            continue
        path = expanded(value, key)
        if moves and not path.startswith("${"):
            path = os.path.abspath(path)
        if path != value:
            found.append(f"{key}={quoted(path)}".replace("\\${", "${"))
    return found
