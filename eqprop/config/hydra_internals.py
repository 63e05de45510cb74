"""Everything that uses private parts of Hydra and OmegaConf; no other file does.

Hydra's public ``compose`` takes no search path and no run mode, and reads every file again for each
of a sweep's jobs. The private parts change: pyproject.toml keeps below the next releases.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml
from hydra import version
from hydra._internal import utils
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.utils import setup_globals
from omegaconf._utils import get_omega_conf_dumper

import eqprop


def get_args_parser() -> argparse.ArgumentParser:
    """Return Hydra's parser of the command line; ``--version`` is this package's."""
    parser = utils.get_args_parser()
    shown: Any = parser._option_string_actions["--version"]
    shown.version, shown.help = f"eqprop {eqprop.__version__}", "Show the version and exit"
    return parser


def config_loader(folder: str, first: Path | None) -> ConfigLoaderImpl:
    """Return the loader that Hydra's main would use; it searches ``first``, then ``folder``."""
    if version.getbase() is None:
        version.setbase("1.3")
    setup_globals()
    path = utils.create_config_search_path(folder)
    # where plugins with options of the same names are installed, ours would get their keys
    stored: Any = ConfigStore.instance().repo["hydra"]
    for option in Path(folder).glob("hydra/*/*.yaml"):
        stored.get(option.parent.name, {}).pop(option.name, None)
    if first is not None:
        path.prepend("command-line", f"file://{first}", SearchPathQuery(provider="schema"))
    return ConfigLoaderImpl(config_search_path=path)


def to_yaml(content: Any) -> str:
    """Plain values as OmegaConf writes them: it reads more texts as numbers than YAML does."""
    how: Any = {"default_flow_style": False, "sort_keys": False, "allow_unicode": True}
    return str(yaml.dump(content, Dumper=get_omega_conf_dumper(), **how))
