"""The configurations of a sweep's jobs, composed fast: most of them differ in a few numbers."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from eqprop.config.composer import Composer


class Cells:
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
        if "override_dirname" in OmegaConf.to_yaml(self.bases[chosen].hydra.sweep):
            return self.composer.load([*self.fixed, *cell])  # it is made while composing
        cfg = copy.deepcopy(self.bases[chosen])
        self.composer.apply(values, cfg, [*self.fixed, *cell])
        return cfg
