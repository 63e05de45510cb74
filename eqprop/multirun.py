"""A multirun's jobs, composed and validated before the first of them starts."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, cast

from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from eqprop.composer import Composer
from eqprop.errors import ConfigError
from eqprop.suggest import brief

CELLS = 64
"""How many jobs of a multirun are composed and checked before it starts, at most."""


def check_jobs(overrides: Sequence[str], composer: Composer) -> None:
    """Compose and validate the jobs that these overrides and the sweeper's own parameters make.

    Raises:
        ConfigError: one line on the first mistake, with the overrides of its job.
    """
    master = composer.load(overrides, RunMode.MULTIRUN)
    params = OmegaConf.select(master, "hydra.sweeper.params") or {}
    lines = [f"{key}={value}" for key, value in params.items()]
    lines += list(master.hydra.overrides.task)
    cells = expand(composer.parse(lines))
    jobs = _Jobs(composer, list(master.hydra.overrides.hydra))
    for number, cell in enumerate(cells):
        try:
            composer.validate(jobs.compose(cell), number)
        except ConfigError as error:
            if len(cells) == 1:
                raise
            own = [word for word in cell if any(word not in other for other in cells)]
            raise ConfigError(f"{error} (in the job {brief(' '.join(own))})") from error


def expand(overrides: Sequence[Override], most: int = CELLS) -> list[list[str]]:
    """Return the overrides of a sweep's jobs: all of them, or `most`.

    Of more than `most` jobs, those come first that together hold every value of every axis. Of a
    continuous range, which other sweepers take, its two ends stand for it.
    """
    axes: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        bare = override.is_delete() and override.value() is None
        axes[key] = [key] if bare else [f"{key}={value}" for value in _values(override)]
    lists = list(axes.values())
    product = list(itertools.islice(itertools.product(*lists), most + 1))
    if len(product) > most:
        longest = max(len(values) for values in lists)
        diagonal = [tuple(v[k % len(v)] for v in lists) for k in range(min(longest, most))]
        product = list(dict.fromkeys([*diagonal, *product]))[:most]
    return [list(cell) for cell in product]


class _Jobs:
    """Composes jobs; those that choose the same options share the reading, which takes longest."""

    def __init__(self, composer: Composer, fixed: Sequence[str]) -> None:
        self.composer = composer
        self.fixed = list(fixed)
        self.is_group = composer.repository(fixed).group_exists
        self.bases: dict[tuple[str, ...], DictConfig] = {}

    def compose(self, cell: Sequence[str]) -> DictConfig:
        """Return what the overrides of one job make."""
        parsed = self.composer.parse(cell)
        values = [override for override in parsed if not self.is_group(override.key_or_group)]
        chosen = tuple(
            str(override.input_line) for override in parsed if self.is_group(override.key_or_group)
        )
        if chosen not in self.bases:
            self.bases[chosen] = self.composer.load([*self.fixed, *chosen])
        cfg = copy.deepcopy(self.bases[chosen])
        self.composer.apply(values, cfg, [*self.fixed, *cell])
        return cfg


def _values(override: Override) -> Iterator[str]:
    if override.is_discrete_sweep():
        yield from override.sweep_string_iterator()
    elif override.is_sweep_override():
        interval = cast("Any", override.value())
        yield from (str(interval.start), str(interval.end))
    else:
        yield override.get_value_element_as_str()
