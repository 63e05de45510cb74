"""Composing the configuration in advance, so that a mistake is one line before anything begins.

`check` does what Hydra's main is about to do with the same command line, without running anything:
Hydra's own messages are several lines, point at "use +key", and come as tracebacks here and there.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write

from eqprop.config import translate
from eqprop.config.hydra_internals import config_loader, get_args_parser
from eqprop.config.slug import register_resolvers
from eqprop.config.validation import resolved, validate_composed
from eqprop.run.errors import ConfigError
from eqprop.run.lock import refuse_used
from eqprop.run.text import show

__all__ = ["Composer", "check", "compose", "conf_dir", "register_resolvers", "validate_composed"]


def check(argv: Sequence[str]) -> DictConfig | None:
    """Compose and validate what the command line asks for: one run, or a multirun without its jobs.

    Where it asks for help or for the configuration to be shown, it is composed only. Returns the
    configuration of a single run, Hydra's own part included, else None.

    Args:
        argv: the arguments without the program's name.

    Raises:
        ConfigError: one line on the first mistake.
        SystemExit: from argparse, on an unknown flag (2) and on ``--version`` (0).
    """
    args = get_args_parser().parse_args(list(argv))
    if args.shell_completion or args.hydra_help or args.experimental_rerun is not None:
        return None
    _refuse_contradictions(args)
    composer = Composer(args.config_name or "config", args.config_path, args.config_dir)
    if args.help or args.info is not None or args.cfg is not None:
        cfg = composer.load(args.overrides)
        if args.resolve and args.cfg is not None:
            with composer.as_job(cfg, None):
                resolved(cfg, throw_on_missing=False)
    elif _is_multirun(args, composer):
        composer.load(args.overrides, RunMode.MULTIRUN)  # its sweeper checks the jobs
    else:
        cfg = composer.load(args.overrides)
        composer.validate(cfg)
        _refuse_lone_search(cfg)
        return cfg
    return None


def compose(overrides: Sequence[str] = (), config_name: str = "config") -> DictConfig:
    """Return the composed configuration, without Hydra's own part, for use from Python.

    Raises:
        ConfigError: one line on the first mistake.
    """
    cfg = Composer(config_name).load(overrides)
    with read_write(cfg), open_dict(cfg):
        del cfg["hydra"]
    return cfg


def conf_dir() -> Path:
    """Return the folder of configuration files: beside the package in a checkout, else in it."""
    package = Path(__file__).resolve().parent.parent
    checkout = package.parent / "conf"
    return checkout if (checkout / "config.yaml").is_file() else package / "conf"


class Composer:
    """Composes configurations from our files, and from those that a command line adds.

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
        register_resolvers()
        path = config_path or str(conf_dir())
        if not path.startswith("pkg://") and not os.path.isabs(path):
            where = f"must be absolute, here {os.path.abspath(path)}"
            raise ConfigError(f"--config-path={path}: {where}; --config-dir adds a folder instead")
        folder = None if config_dir is None else Path(os.path.abspath(config_dir))
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"--config-dir={config_dir}: there is no folder {folder}")
        self.name = name
        self.loader = config_loader(path, folder)

    def parse(self, overrides: Sequence[str]) -> list[Override]:
        """Parse overrides by Hydra's grammar."""
        with self._in_one_line(overrides):
            return OverridesParser.create(self.loader).parse_overrides(list(overrides))

    def load(
        self, overrides: Sequence[str], mode: RunMode = RunMode.RUN, any_sweep: bool = False
    ) -> DictConfig:
        """Compose, Hydra's own part included; `any_sweep` lets several values through in a RUN."""
        with self._in_one_line(overrides):
            return self.loader.load_configuration(
                self.name, list(overrides), mode, validate_sweep_overrides=not any_sweep
            )

    def validate(self, cfg: DictConfig, job: int | None = None, place: bool = True) -> None:
        """Validate with ``${hydra:…}`` resolvable, as in the run or in the multirun's job.

        `place` has the run's folder checked too: whether it is free.
        """
        with self.as_job(cfg, job):
            validate_composed(cfg)
            with translate.resolution(cfg):
                subdir, folder = cfg.hydra.output_subdir, cfg.hydra.run.dir if place else None
        if subdir not in (None, ".hydra"):
            why = "must be .hydra or null: resume and rerun look there for the configuration"
            raise ConfigError(f"hydra.output_subdir={show(subdir)}: {why}")
        if folder is not None and cfg.get("resume") is None:
            refuse_used(Path(folder))  # before Hydra opens its log there

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

    @contextmanager
    def _in_one_line(self, overrides: Sequence[str]) -> Iterator[None]:
        with translate.composition(self.loader, self.name, overrides), warnings.catch_warnings():
            # Hydra only warns of a folder in the search path that is not there
            message = r"provider=.*is not\s+available"
            warnings.filterwarnings("error", message=message, category=UserWarning)
            yield


def _refuse_contradictions(args: argparse.Namespace) -> None:
    modes = ("run", "multirun", "cfg", "info")
    given = [f"--{mode}" for mode in modes if getattr(args, mode) not in (False, None)]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} cannot go together; choose one")
    if args.resolve and args.cfg is None and not args.help:
        raise ConfigError("--resolve goes with --cfg: add --cfg job")


def _is_multirun(args: argparse.Namespace, composer: Composer) -> bool:
    """Whether -m or `hydra.mode` makes it a multirun; several values without one are refused."""
    overrides = composer.parse(args.overrides)
    sweeps = [str(override.input_line) for override in overrides if override.is_sweep_override()]
    if args.multirun or not (sweeps or any(o.key_or_group == "hydra.mode" for o in overrides)):
        return bool(args.multirun)
    cfg = composer.load(args.overrides, RunMode.MULTIRUN, any_sweep=True)
    if sweeps and cfg.hydra.mode != RunMode.MULTIRUN:
        raise ConfigError(translate.several(sweeps[0]))
    return bool(cfg.hydra.mode == RunMode.MULTIRUN)


def _refuse_lone_search(cfg: DictConfig) -> None:
    option = cfg.hydra.runtime.choices.get("sweep", "grid")
    if option != "grid" or cfg.sweep.sampler != "grid":
        key, value = ("sweep", option) if option != "grid" else ("sweep.sampler", cfg.sweep.sampler)
        raise ConfigError(f"{key}={value}: starts many runs; add -m, or leave it out for one")
