"""Keys that change nothing in the command that they were typed in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from omegaconf import DictConfig, OmegaConf

from eqprop.run import hardware
from eqprop.run.text import brief, key_of

_OF_A_SWEEP = ("sweep", "hydra.sweep", "hydra.sweeper", "hydra.launcher")
_OF_A_SEARCH = ("sweep.max_failures", "sweep.seed")
_OF_TRACKERS = ("project", "entity", "group", "tags", "notes")
_OF_A_GPU = ("device.index", "device.cuda_graph", "device.channels_last")
_WITHOUT_DOWNLOAD = ("eqprop.data.MNIST5k", "eqprop.data.Digits")


def without_effect(cfg: DictConfig, typed: Sequence[str], multirun: bool) -> Iterator[str]:
    """A line for each override, of those that a person typed, that changes nothing.

    ``cfg`` is what all of them were composed into, Hydra's own part included.
    """
    if not OmegaConf.is_missing(cfg.hydra.job, "num"):  # a sweep's job gets what all of them get
        return
    keys = [key_of(word).replace("/", ".") for word in typed]
    for word, key in zip(typed, keys, strict=True):
        if why := _why(cfg, word, key, keys, multirun):
            yield f"{brief(word)}: has no effect {why}"


def _why(cfg: DictConfig, word: str, key: str, keys: Sequence[str], multirun: bool) -> str | None:
    """Why an override does nothing; None if it does something."""
    group, _, last = key.partition(".")
    if not multirun and _is_below(key, _OF_A_SWEEP) and word != "sweep=grid":
        return "on a single run; add -m"
    if multirun and _is_below(key, ("hydra.run",)):
        return "with -m; choose hydra.sweep.dir"
    if multirun and key in _OF_A_SEARCH and cfg.sweep.sampler == "grid":
        return "on a grid; choose sweep.sampler=tpe for a search"
    if multirun:  # what the jobs make of a key may differ from one to the next
        return None
    if group == "tracking" and last in _OF_TRACKERS and not cfg.tracking.trackers:
        return "without a tracker; choose one with tracking=OPTION"
    if key in _OF_A_GPU and (cfg.device.type == "cpu" or hardware.gpu_count() == 0):
        return "on the CPU"
    if key == "dataset.download" and cfg.dataset.get("_target_") in _WITHOUT_DOWNLOAD:
        return "on data that come with a package"
    if key == "optimizer.dampening" and not cfg.optimizer.get("momentum"):
        return "while optimizer.momentum=0"
    if key == "network" and "model.hidden" in keys and not cfg.model.get("skips"):
        return "beside model.hidden, which replaces its layers"
    return None


def _is_below(key: str, parents: Sequence[str]) -> bool:
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)
