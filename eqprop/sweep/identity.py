"""What makes two commands the same search, and the folder's name that follows from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from eqprop.sweep import space
from eqprop.sweep.options import Sweep

RESOLVER = "eqprop.search"
FREE = ("tracking", "paths", "checkpoint", "resume", "rerun", "sweep")
"""Parts of the configuration in which two commands of one search may differ."""

_FREE_KEYS = ("trainer.progress", "dataset.download", "device.threads")


def is_free(key: str) -> bool:
    """Whether a key may change between two commands of one search."""
    return key.partition(".")[0] in FREE or key in _FREE_KEYS


def without_free(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The configuration without what may change between two commands of one search."""
    kept: dict[str, Any] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if not is_free(path):
            kept[key] = without_free(value, f"{path}.") if isinstance(value, Mapping) else value
    return kept


def settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of ``sweep`` that decide which runs there are."""
    searches = options["sampler"] != "grid"
    keys = ["sampler", "repeats", *(["seed", "pruner"] if searches else [])]
    return {f"sweep.{key}": options[key] for key in keys}


def search_hash(*, _root_: DictConfig) -> str:
    """Six hexadecimal digits of the search that a multirun's configuration asks for.

    It depends on the space, on the overrides that all jobs have and on what decides the points,
    in any order; not on how many there are, how they are run or where the results go.

    Args:
        _root_: the composed configuration, given by OmegaConf.
    """
    parsed = OverridesParser.create().parse_overrides(space.asked(_root_))
    last = {override.get_key_element().lstrip("+"): override for override in parsed}
    asked = {
        key: str(override.input_line).partition("=")[2]
        if override.is_sweep_override()
        else repr(override.value())
        for key, override in last.items()
        if not is_free(override.key_or_group)
    }
    options = OmegaConf.to_container(_root_.sweep, resolve=True)
    known = {**Sweep().model_dump(), **dict(options)}  # type: ignore[arg-type]
    text = json.dumps([sorted(asked.items()), settings(known)], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def register_resolver() -> None:
    """Make ``${eqprop.search:}`` known to OmegaConf; calling it again changes nothing."""
    if not OmegaConf.has_resolver(RESOLVER):
        OmegaConf.register_new_resolver(RESOLVER, search_hash)
