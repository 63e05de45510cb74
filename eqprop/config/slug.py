"""Folder names for runs: readable, unique, and unable to leave the output folder."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from eqprop.config.folder import conf_dir
from eqprop.run.text import key_of

RESOLVER = "eqprop.slug"
_UNNAMED: tuple[str | None, ...] = (None, "", "none")
_NAMED = ("model", "network", "dataset", "estimator", "noise", "ablation")
_USUAL = dict.fromkeys(_NAMED, _UNNAMED)
_USUAL |= {"network": (*_UNNAMED, "mlp"), "estimator": (*_UNNAMED, "ep")}
"""Options that a run's name does not mention."""
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def readable(text: object) -> str:
    """Return the text as one harmless path component of at most 60 bytes, never empty.

    Only ``A-Z a-z 0-9 _ . -`` remain: accents are dropped, everything else becomes one ``-``.
    """
    plain = unicodedata.normalize("NFKD", str(text)[:4096]).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", plain)
    slug = re.sub(r"\.{2,}|-{2,}", "-", slug).strip(".-")[:60].rstrip(".-")
    return slug or "run"


def run_slug(job: object, *, _root_: DictConfig) -> str:
    """Return ``<name>-<6 hex>``, or what the run runs where it has no name.

    That is its model, network, data set, estimator, noise and ablation, of the usual ones only
    model and data set: ``hopfield-lenet-mnist-backprop-a1b2c3``. An experiment stands for all of
    them but those that are typed beside it.

    ``job`` is ``run``, or the job's number in a multirun. The six random digits keep two runs
    started in the same second apart. They are kept in the configuration's resolver cache under the
    job: OmegaConf's own caching goes by the text of the interpolation, which is the same for all.
    """
    cache: dict[Any, Any] = OmegaConf.get_cache(_root_)[RESOLVER]
    if job not in cache:
        title = OmegaConf.select(_root_, "name") or "-".join(_what_runs(_root_))
        cache[job] = f"{readable(str(title))}-{os.urandom(3).hex()}"
    return str(cache[job])


def _what_runs(cfg: DictConfig) -> list[str]:
    """The parts that tell a run from others, in the words of whoever chose them."""
    overrides = OmegaConf.select(cfg, "hydra.overrides.task") or []
    typed = {key_of(str(word)) for word in overrides}
    names = {group: _name(cfg, group, typed, conf_dir() / group) for group in _NAMED}
    experiment = OmegaConf.select(cfg, "hydra.runtime.choices.experiment")
    if experiment in _UNNAMED:
        return [str(name) for group, name in names.items() if name not in _USUAL[group]]
    title, data = str(experiment), str(names["dataset"])
    known = {data, *(path.stem for path in (conf_dir() / "dataset").glob("*.yaml"))}
    its = max((name for name in known if name in title), key=len, default="")
    shown = [title] if data in (its, *_USUAL["dataset"]) else [title, data]
    beside = [group for group in names if typed & {group, f"{group}._target_"}]
    words = [str(names[group]) for group in beside if group != "dataset"]
    return [*shown, *(word for word in words if not re.search(rf"(?<![a-z0-9]){word}", title))]


def _name(cfg: DictConfig, group: str, typed: Collection[str], files: Path) -> str | None:
    """A group's option, or the class that was put in its place."""
    option = OmegaConf.select(cfg, f"hydra.runtime.choices.{group}")
    target = str(OmegaConf.select(cfg, f"{group}._target_") or "")
    replaced = not target.startswith("eqprop.") and (files / f"{option}.yaml").is_file()
    if target and (replaced or f"{group}._target_" in typed or option is None):
        option = _WORDS.sub("_", target.rpartition(".")[2]).lower()
    return f"noise_{option}" if group == "noise" and option not in _USUAL[group] else option


def words_of(text: str | None) -> ListConfig:
    """Return the words of a list with commas, as W&B's variables hold it."""
    return ListConfig([word for part in str(text or "").split(",") if (word := part.strip())])


def register_resolvers() -> None:
    """Make ``${eqprop.…:}`` known to OmegaConf; calling it again changes nothing."""
    if not OmegaConf.has_resolver(RESOLVER):
        OmegaConf.register_new_resolver(RESOLVER, run_slug)
        OmegaConf.register_new_resolver("eqprop.words", words_of)
