"""Hydra's side of a sweep: the sweeper that ``hydra/sweeper=eqprop`` names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper as HydraSweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from eqprop.sweep.plan import OURS


class Sweeper(HydraSweeper):
    """Runs each job in a process of its own, and goes on where an earlier command was stopped.

    Args:
        params: keys to sweep, each with its values in Hydra's grammar.
    """

    exit_code = 0
    """Of the last sweep in this process: Hydra's main returns nothing."""

    def __init__(self, params: Mapping[str, Any] | None = None) -> None:
        self.params = params or {}
        self.config: DictConfig | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take the multirun's configuration."""
        self.config = config

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep; returns its summary."""
        from eqprop.config.composer import Composer
        from eqprop.sweep.run import run_sweep

        assert self.config is not None
        given, _ = get_args_parser().parse_known_args(sys.argv[1:])
        name = self.config.hydra.job.config_name or "config"
        composer = Composer(name, given.config_path, given.config_dir)
        summary = run_sweep(composer, self.config)
        Sweeper.exit_code = summary.exit_code
        return summary


def register() -> None:
    """Make the sweeper known to Hydra, which takes plugins from the package of that name only."""
    package, _, name = OURS.rpartition(".")[0].partition(".")
    try:
        home = importlib.import_module(package)
    except ImportError:  # no plugin is installed
        home = sys.modules[package] = ModuleType(package)
    setattr(home, name, sys.modules[__name__])
    Sweeper.__module__ = f"{package}.{name}"
    Plugins.instance().register(Sweeper)
