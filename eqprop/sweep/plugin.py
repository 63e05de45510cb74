"""The sweeper as Hydra knows it: what ``hydra/sweeper=eqprop`` names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper as HydraSweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

# the folder of the command, "", comes last already while this is imported
_START = """import sys; sys.path.sort(key=lambda entry: entry == "")
from eqprop.cli.main import run; run()"""


class Sweeper(HydraSweeper):
    """Runs each job in a process of its own, and goes on where an earlier command was stopped.

    ``params`` are keys to sweep, each with its values in Hydra's grammar.
    """

    __module__ = "hydra_plugins.eqprop"

    exit_code = 0  # of the last sweep in this process: Hydra's main returns nothing

    def __init__(self, params: Mapping[str, Any] | None = None) -> None:
        self.config: DictConfig = OmegaConf.create()

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config = config

    def sweep(self, arguments: list[str]) -> None:
        from eqprop.config.compose import Composer
        from eqprop.sweep.start import run_sweep

        name, path, folder = sources(self.config)
        composer = Composer(name, path, folder)
        flags = {"--config-name": name, "--config-path": path, "--config-dir": folder}
        words = [
            f"{flag}={value}" for flag, value in flags.items() if value not in (None, "config")
        ]
        script = Path(sys.argv[0]).absolute()
        is_file = sys.argv[0] and script.is_file()  # else it is python -c, or another program
        start = [str(script)] if is_file else ["-c", _START]
        Sweeper.exit_code = run_sweep(composer, self.config, [sys.executable, *start, *words])


def sources(config: DictConfig) -> tuple[str, str | None, str | None]:
    """Return the command's --config-name, --config-path and --config-dir; None: the default."""
    from eqprop.config.folder import conf_dir

    found: dict[str, str] = {}
    for source in config.hydra.runtime.config_sources:
        path = source.path if source.schema == "file" else f"{source.schema}://{source.path}"
        found[source.provider] = path
    path = found.get("main")
    own = None if path == str(conf_dir()) else path
    return str(config.hydra.job.config_name or "config"), own, found.get("command-line")


def register() -> None:
    """Make the sweeper known to Hydra, which takes plugins from the package of that name only."""
    try:
        home = importlib.import_module("hydra_plugins")
    except ImportError:  # no plugin is installed
        home = sys.modules["hydra_plugins"] = ModuleType("hydra_plugins")
        home.__path__ = []  # Hydra looks for plugins in it
    home.eqprop = sys.modules[__name__]  # type: ignore[attr-defined]
    Plugins.instance().register(Sweeper)


def _search_hash(*, _root_: DictConfig) -> str:
    from eqprop.sweep.plan import search_hash  # loads Optuna, which no single run needs

    return search_hash(_root_)


OmegaConf.register_new_resolver("eqprop.search", _search_hash, replace=True)
