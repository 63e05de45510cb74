"""Folder names for runs: readable, unique, and unable to leave the output folder."""

from __future__ import annotations

import os
import re
import unicodedata
from typing import Any

from omegaconf import DictConfig, OmegaConf

from eqprop.run.redact import redact

_LONGEST = 60
RESOLVER = "eqprop.slug"


def readable(text: object) -> str:
    """Return the text as one harmless path component of at most 60 bytes.

    Only ``A-Z a-z 0-9 _ . -`` remain (accents are dropped, everything else becomes one ``-``), it
    begins and ends with none of ``. -``, and it is never empty.
    """
    plain = unicodedata.normalize("NFKD", str(text)[:4096]).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", plain)
    slug = re.sub(r"\.{2,}|-{2,}", "-", slug).strip(".-")[:_LONGEST].rstrip(".-")
    return slug or "run"


def run_slug(job: object, *, _root_: DictConfig) -> str:
    """Return ``<name>-<6 hex>``, or ``<model>-<dataset>-<6 hex>`` where the run has no name.

    Args:
        job: ``run``, or the job's number in a multirun: the same job gets the same slug each time
            it is asked for, another job another one.
        _root_: the composed configuration, given by OmegaConf.

    The six random digits keep two runs started in the same second apart. They are kept in the
    configuration's resolver cache under the job's number: OmegaConf's own caching goes by the text
    of the interpolation, which is the same for all jobs, and Hydra copies the cache to each job.
    """
    cache: dict[Any, Any] = OmegaConf.get_cache(_root_)[RESOLVER]
    if job not in cache:
        cache[job] = f"{readable(redact(str(_title(_root_))))}-{os.urandom(3).hex()}"
    return str(cache[job])


def register_resolvers() -> None:
    """Make ``${eqprop.…:}`` known to OmegaConf; calling it again changes nothing."""
    if not OmegaConf.has_resolver(RESOLVER):
        OmegaConf.register_new_resolver(RESOLVER, run_slug)


def _title(cfg: DictConfig) -> object:
    name = _select(cfg, "name")
    if name is not None:
        return name
    choices = (_select(cfg, f"hydra.runtime.choices.{group}") for group in ("model", "dataset"))
    return "-".join(str(choice) for choice in choices if choice is not None)


def _select(cfg: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(cfg, key)
    except Exception:  # a broken interpolation is reported by the check, not by a folder's name
        return None
