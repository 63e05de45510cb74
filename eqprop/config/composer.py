"""Hydra's config loader over our search path, with its errors in one line."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from eqprop.config import translate
from eqprop.config.schema import Config, validate
from eqprop.config.slug import register_resolvers
from eqprop.config.yamlguard import guarded_files
from eqprop.run.errors import ConfigError
from eqprop.run.lock import refuse_used
from eqprop.run.text import show

_RESOLVED_BY_HYDRA = ("job.env_set", "job_logging", "hydra_logging")
_LAUNCHERS = ("joblib", "ray", "submitit_local", "submitit_slurm")


def conf_dir() -> Path:
    """Return the folder of configuration files: beside the package in a checkout, else in it."""
    package = Path(__file__).resolve().parent.parent
    checkout = package.parent / "conf"
    return checkout if (checkout / "config.yaml").is_file() else package / "conf"


def validate_composed(cfg: DictConfig) -> Config:
    """Resolve a composed configuration and validate it; Hydra's own part, if there, is left out.

    Raises:
        ConfigError: one line on the first mistake, a broken interpolation or an unset key included.
    """
    return validate(resolved(cfg))


def resolved(cfg: DictConfig, throw_on_missing: bool = True) -> dict[Any, Any]:
    """Return plain, resolved values; Hydra's own part, if there, is left out.

    Raises:
        ConfigError: as ``validate_composed``, of a broken interpolation or an unset key.
    """
    ours = cfg
    if "hydra" in cfg:
        ours = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    with translate.resolution(ours):
        plain = OmegaConf.to_container(ours, resolve=True, throw_on_missing=throw_on_missing)
    return cast("dict[Any, Any]", plain)


class Composer:
    """Composes what a command line asks for, as Hydra's main would.

    Args:
        name: the primary configuration's file name without ``.yaml``.
        config_path: the folder that it lies in, absolute or ``pkg://…``; None is ours.
        config_dir: a folder that is searched as well.

    Raises:
        ConfigError: if a folder is not there.
    """

    def __init__(
        self, name: str = "config", config_path: str | None = None, config_dir: str | None = None
    ) -> None:
        if version.getbase() is None:
            version.setbase("1.3")
        setup_globals()
        register_resolvers()
        self.name = name
        path = create_config_search_path(_primary(config_path))
        _forget_published_launchers()
        if config_dir is not None:
            folder = os.path.abspath(config_dir)
            if not os.path.isdir(folder):
                raise ConfigError(f"--config-dir={config_dir}: there is no folder {folder}")
            path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
        self.loader = ConfigLoaderImpl(config_search_path=path)

    def parse(self, overrides: Sequence[str]) -> list[Override]:
        """Parse overrides by Hydra's grammar."""
        with translate.composition(self.loader, self.name, overrides):
            parser = OverridesParser.create(config_loader=self.loader)
            return parser.parse_overrides(list(overrides))

    def load(
        self, overrides: Sequence[str], mode: RunMode = RunMode.RUN, any_sweep: bool = False
    ) -> DictConfig:
        """Compose, Hydra's own part included; `any_sweep` lets several values through in a RUN."""
        with translate.composition(self.loader, self.name, overrides), _reading_files():
            return self.loader.load_configuration(
                config_name=self.name,
                overrides=list(overrides),
                run_mode=mode,
                validate_sweep_overrides=not any_sweep,
            )

    def repository(self, overrides: Sequence[str]) -> IConfigRepository:
        """Return the files there are, those of a search path among the overrides included."""
        with translate.composition(self.loader, self.name, overrides), _reading_files():
            return self.loader._parse_overrides_and_create_caching_repo(self.name, list(overrides))[
                1
            ]

    def apply(self, values: Sequence[Override], cfg: DictConfig, overrides: Sequence[str]) -> None:
        """Set keys of a composed configuration as Hydra does; `overrides` are all of the job's."""
        with translate.composition(self.loader, self.name, overrides):
            self.loader._apply_overrides_to_config(list(values), cfg)

    def validate(self, cfg: DictConfig, job: int | None = None, place: bool = True) -> None:
        """Validate with ``${hydra:…}`` resolvable, as in the run or in the multirun's job.

        `place` has the run's folder checked too: whether it is free.
        """
        folders = ["run.dir"] if job is None else ["sweep.dir", "sweep.subdir"]
        with self.as_job(cfg, job):
            validate_composed(cfg)
            _refuse_other_records(cfg)
            if not place:
                return
            with translate.resolution(cfg):
                parts = [
                    str(OmegaConf.select(cfg, f"hydra.{folder}", throw_on_missing=True))
                    for folder in folders
                ]
                for part in _RESOLVED_BY_HYDRA:
                    found = OmegaConf.select(cfg, f"hydra.{part}")
                    if OmegaConf.is_config(found):
                        OmegaConf.to_container(found, resolve=True)
            if cfg.get("resume") is None:
                refuse_used(Path(*parts))  # before Hydra opens its log there

    @contextmanager
    def as_job(self, cfg: DictConfig, job: int | None) -> Iterator[None]:
        """Within it ``${hydra:…}`` means this configuration, of a multirun's job by its number."""
        holder = HydraConfig.instance()
        before = holder.cfg
        with read_write(cfg.hydra), open_dict(cfg.hydra):
            cfg.hydra.runtime.output_dir = os.getcwd()
            if job is not None:
                cfg.hydra.job.num = cfg.hydra.job.id = job
        holder.set_config(cfg)
        try:
            yield
        finally:
            holder.cfg = before


def _refuse_other_records(cfg: DictConfig) -> None:
    found = OmegaConf.select(cfg, "hydra.output_subdir")
    if found not in (None, ".hydra"):
        raise ConfigError(
            f"hydra.output_subdir={show(found)}: must be .hydra or null: a run's configuration is "
            "in its .hydra, where resume and rerun look for it"
        )


def _forget_published_launchers() -> None:
    """Where launchers of the same names are installed, they would give ours their keys."""
    known: Any = ConfigStore.instance().repo["hydra"]["launcher"]
    for name in _LAUNCHERS:
        known.pop(f"{name}.yaml", None)


def _primary(config_path: str | None) -> str:
    if config_path is None:
        return str(conf_dir())
    if config_path.startswith("pkg://") or os.path.isabs(config_path):
        return config_path
    raise ConfigError(
        f"--config-path={config_path}: must be absolute, here {os.path.abspath(config_path)}; "
        "--config-dir adds a folder to the search path instead"
    )


@contextmanager
def _reading_files() -> Iterator[None]:
    """Refuse files that are none, and raise what Hydra only warns of: a path that is missing."""
    with warnings.catch_warnings(), guarded_files():
        message = r"provider=.*is not\s+available"
        warnings.filterwarnings("error", message=message, category=UserWarning)
        yield
