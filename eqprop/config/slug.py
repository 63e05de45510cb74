"""Folder names for runs: readable, unique, and unable to leave the output folder."""

from __future__ import annotations

import os
import re
import unicodedata
from typing import Any

from omegaconf import DictConfig, OmegaConf

from eqprop.run.redact import redact

RESOLVER = "eqprop.slug"
_UNNAMED = (None, "", "none")
"""Options that a run's name does not mention."""


def readable(text: object) -> str:
    """Return the text as one harmless path component of at most 60 bytes, never empty.

    Only ``A-Z a-z 0-9 _ . -`` remain: accents are dropped, everything else becomes one ``-``.
    """
    plain = unicodedata.normalize("NFKD", str(text)[:4096]).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", plain)
    slug = re.sub(r"\.{2,}|-{2,}", "-", slug).strip(".-")[:60].rstrip(".-")
    return slug or "run"


def run_slug(job: object, *, _root_: DictConfig) -> str:
    """Return ``<name>-<6 hex>``, or ``<model>-<dataset>-<6 hex>`` where the run has no name.

    A noise or an ablation is named before the digits: ``gaussian-mnist5k-noise_state-a1b2c3``.

    ``job`` is ``run``, or the job's number in a multirun. The six random digits keep two runs
    started in the same second apart. They are kept in the configuration's resolver cache under the
    job: OmegaConf's own caching goes by the text of the interpolation, which is the same for all.
    """
    cache: dict[Any, Any] = OmegaConf.get_cache(_root_)[RESOLVER]
    if job not in cache:
        groups = {"model": "", "dataset": "", "noise": "noise_", "ablation": ""}
        keys = {key: f"hydra.runtime.choices.{key}" for key in groups}
        options = {key: OmegaConf.select(_root_, path) for key, path in keys.items()}
        chosen = [groups[k] + option for k, option in options.items() if option not in _UNNAMED]
        title = redact(str(OmegaConf.select(_root_, "name") or "-".join(chosen)))
        cache[job] = f"{readable(title)}-{os.urandom(3).hex()}"
    return str(cache[job])


def register_resolvers() -> None:
    """Make ``${eqprop.…:}`` known to OmegaConf; calling it again changes nothing."""
    if not OmegaConf.has_resolver(RESOLVER):
        OmegaConf.register_new_resolver(RESOLVER, run_slug)
