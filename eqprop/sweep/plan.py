"""What a multirun's command asks for: a space, options, a folder, and the words of each job."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError

from eqprop.config import explain, translate
from eqprop.config.composer import Composer
from eqprop.run.errors import ConfigError
from eqprop.run.resume import differences
from eqprop.run.text import key_of
from eqprop.sweep import space
from eqprop.sweep.cells import Cells
from eqprop.sweep.identity import without_free
from eqprop.sweep.options import Sweep
from eqprop.sweep.space import Axis, Space

OURS = "hydra_plugins.eqprop.Sweeper"
_NOT_THE_JOBS = ("sweep", "sweeper", "launcher", "mode", "run")
"""Hydra's keys that are about the multirun, not about a job."""


@dataclass(frozen=True)
class Plan:
    """A sweep, read from its command line.

    Attributes:
        space: what varies, and the overrides that all jobs have.
        options: the keys of ``sweep``.
        folder: ``hydra.sweep.dir``, absolute.
        hydra: the command's overrides of Hydra's own keys.
        cells: composes the jobs.
    """

    composer: Composer
    space: Space
    options: Sweep
    folder: Path
    hydra: tuple[str, ...]
    cells: Cells

    def words(self, point: Sequence[str], seed: int | None = None) -> tuple[str, ...]:
        """The overrides of one job at a point of the space."""
        words = self.space.job(point)
        if seed is not None:
            words = [*(word for word in words if key_of(word) != "seed"), f"seed={seed}"]
        return (*words, *(w for w in self.hydra if _key_of_hydra(w) not in _NOT_THE_JOBS))

    def compose(self, point: Sequence[str]) -> DictConfig:
        """The configuration of a job at a point, Hydra's own part included.

        Raises:
            ConfigError: one line on what is wrong with it.
        """
        return self.cells.compose(self.space.job(point))

    def place(self, cfg: DictConfig, number: int) -> Path:
        """The folder of job ``number``, whose configuration is ``cfg``."""
        with self.composer.as_job(cfg, number), translate.resolution(cfg):
            subdir = OmegaConf.select(cfg, "hydra.sweep.subdir", throw_on_missing=True)
        return self.folder / str(subdir)

    def reference(self) -> tuple[str, ...]:
        """A point of the space: the first value of each axis, the lower end of an interval."""
        return tuple(
            axis.word(axis.values[0] if axis.values else axis.interval.low)  # type: ignore[union-attr]
            for axis in self.space.axes
        )

    def settings(self, point: Sequence[str]) -> dict[str, Any]:
        """The resolved configuration at a point, without what may change between two commands."""
        cfg = self.compose(point)
        ours = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        with self.composer.as_job(cfg, 0), translate.resolution(ours):
            return without_free(cast("dict[str, Any]", OmegaConf.to_container(ours, resolve=True)))

    def changes(self, point: Sequence[str], recorded: dict[str, Any]) -> list[tuple[str, Any, Any]]:
        """Each key in which the configuration at a point differs from the recorded one."""
        return differences(recorded, self.settings(point))


def read(composer: Composer, master: DictConfig) -> Plan:
    """Read the plan of a multirun from its configuration.

    Raises:
        ConfigError: one line if it contradicts itself, or needs what is not installed.
    """
    found = space.read(composer.parse(space.asked(master)))
    options = _options(master)
    _refuse_contradictions(found, options)
    fixed = [word for word in found.fixed if not _is_about_sweep(word)]
    if master.hydra.runtime.choices.get("sweep") != "grid":
        fixed.append("sweep=grid")  # a job is a single run
    with composer.as_job(master, 0), translate.resolution(master):
        folder = str(OmegaConf.select(master, "hydra.sweep.dir", throw_on_missing=True))
    found = replace(found, fixed=tuple(fixed))
    hydra = tuple(space.given(master, "hydra"))
    cells = Cells(composer, hydra)
    return Plan(composer, found, options, Path(os.path.abspath(folder)), hydra, cells)


def axes(composer: Composer, words: Sequence[str]) -> tuple[Axis, ...]:
    """The axes that overrides span."""
    return space.read(composer.parse(words)).axes


def is_ours(master: DictConfig) -> bool:
    """Whether the configured sweeper is the program's own."""
    return bool(OmegaConf.select(master, "hydra.sweeper._target_") == OURS)


def _options(master: DictConfig) -> Sweep:
    with translate.resolution(master):
        given = cast("dict[str, Any]", OmegaConf.to_container(master.sweep, resolve=True))
    try:
        return Sweep.model_validate(given)
    except ValidationError as error:
        keys = [f"sweep.{key}" for key in Sweep.model_fields]
        _, line = next(explain.lines(Sweep, "sweep", given, error, lambda: keys))
        raise ConfigError(line) from error


def _refuse_contradictions(found: Space, options: Sweep) -> None:
    if (line := options.contradiction()) is not None:
        raise ConfigError(line)
    searches = options.sampler != "grid"
    for axis in found.axes:
        given = f"{axis.key}={axis.text}"
        if _is_about_sweep(axis.key):
            raise ConfigError(f"{given}: belongs to the sweep as a whole; give it one value")
        if axis.name == "seed" and (searches or options.repeats > 1):
            why = "a search does not vary the seed" if searches else "sweep.repeats sets the seeds"
            raise ConfigError(f"{given}: {why}; leave it out, and choose sweep.repeats=N")
    if not searches:
        found.cells()
    elif not found.axes:
        raise ConfigError(
            f"sweep.sampler={options.sampler}: nothing to search; give a key several values or an "
            "interval, as in optimizer.lr=interval(1e-4,1e-2)"
        )
    elif find_spec("optuna") is None:
        raise ConfigError(
            f'sweep.sampler={options.sampler}: needs Optuna: pip install "eqprop[sweep]"'
        )


def _is_about_sweep(word: str) -> bool:
    return key_of(word).partition(".")[0] == "sweep"


def _key_of_hydra(word: str) -> str:
    """Which part of ``hydra`` an override is about: ``run``, ``sweep``, ``launcher``, …"""
    return key_of(word).replace("/", ".").split(".")[1]
