"""Everything that uses private parts of Hydra and OmegaConf; no other file does.

Hydra's public ``compose`` takes no search path and no run mode, and reads every file again for each
of a sweep's jobs. The private parts change: pyproject.toml keeps below the next releases.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import hydra.main  # noqa: F401 (below, by its name: the package's `main` is the function)
import yaml
from hydra import version
from hydra._internal import utils
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.utils import setup_globals
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf
from omegaconf._utils import get_omega_conf_dumper

import eqprop
from eqprop.run.errors import ConfigError
from eqprop.run.paths import decoded

_parser_of_hydra = utils.get_args_parser


def get_args_parser() -> argparse.ArgumentParser:
    """Return Hydra's parser of the command line; ``--version`` is this package's.

    A flag may stand anywhere; a wrong one raises ConfigError. Hydra itself uses this one, too.
    """
    parser: Any = _parser_of_hydra()
    shown = parser._option_string_actions["--version"]
    shown.version, shown.help = f"eqprop {eqprop.__version__}", "Show the version and exit"
    parser.parse_args, parser.error = parser.parse_intermixed_args, _refuse
    return parser


def flag_names() -> list[str]:
    """Return every flag of the command line, long and short."""
    return list(_parser_of_hydra()._option_string_actions)


def _refuse(message: str) -> NoReturn:
    raise ConfigError(message)


for _user in (sys.modules["hydra.main"], utils):
    _user.get_args_parser = get_args_parser  # type: ignore[attr-defined]


class Files(FileConfigSource):
    """Configuration files as editors leave them: with a byte-order mark, or in UTF-16."""

    def load_config(self, config_path: str) -> ConfigResult:
        path = os.path.realpath(os.path.join(self.path, self._normalize_file_name(config_path)))
        if not os.path.exists(path):
            return super().load_config(config_path)  # which says so
        stream = io.StringIO(decoded(Path(path)))
        stream.name = path  # for YAML's own errors
        header = self._get_header_dict(stream.read(512))
        stream.seek(0)
        config: Any = OmegaConf.load(stream)
        return ConfigResult(self.provider, f"{self.scheme()}://{self.path}", config, header)


def config_loader(folder: str, first: Path | None) -> ConfigLoaderImpl:
    """Return the loader that Hydra's main would use; it searches ``first``, then ``folder``."""
    if version.getbase() is None:
        version.setbase("1.3")
    setup_globals()
    path = utils.create_config_search_path(folder)
    SourcesRegistry.instance().types[Files.scheme()] = Files
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
