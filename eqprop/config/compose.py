"""Composing the configuration in advance, so that a mistake is one line before anything begins.

Hydra's own messages are several lines, point at "use +key", and come as tracebacks here and there.
"""

from __future__ import annotations

import argparse
import os
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
from eqprop.config.signature import component_type
from eqprop.config.slug import register_resolvers
from eqprop.config.targets import locate
from eqprop.config.validation import resolved, validate_composed
from eqprop.run.errors import ConfigError
from eqprop.run.folder import refuse_used
from eqprop.run.text import key_of, show

CHANGEABLE = {
    *("cost", "optimizer", "scheduler", "dataset", "dynamics", "estimator"),
    *("noise", "ablation"),
}
"""Groups whose option may be chosen after something else has set keys of another."""


def check(argv: Sequence[str]) -> DictConfig | None:
    """Compose and validate what the command line asks for: one run, or a multirun without its jobs.

    Returns the configuration of a single run, Hydra's own part included, else None. Raises
    ConfigError, one line on the first mistake, and argparse's SystemExit.
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
    elif args.multirun:
        composer.load(args.overrides, RunMode.MULTIRUN)  # its sweeper checks the jobs
    else:
        cfg = composer.load(args.overrides)
        composer.validate(cfg)
        _refuse_lone_search(cfg)
        return cfg
    return None


def compose(overrides: Sequence[str] = (), config_name: str = "config") -> DictConfig:
    """Return the composed configuration, without Hydra's own part, for use from Python."""
    cfg = Composer(config_name).load(overrides)
    with read_write(cfg), open_dict(cfg):
        del cfg["hydra"]
    return cfg


def drop_left_over_keys(cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Take out keys of a part's former option that the option typed instead does not have.

    An experiment sets ``estimator.beta``; with ``estimator=backprop`` behind it, nothing has one.
    A key that is typed itself stays, to be refused. Returns a line for each that went.
    """
    typed = {key_of(override) for override in overrides}
    lines = []
    for group in CHANGEABLE & cfg.keys() & {key.partition(".")[0] for key in typed}:
        part = cfg[group]
        if f"{group}=none" in overrides and part is not None:  # what keys are left have no option
            with read_write(cfg), open_dict(cfg):
                cfg[group] = None
            lines.append(f"{group}={show(part)}: left out, as {group}=none")
        if cfg[group] is None:
            continue
        if not typed & {group, f"{group}._target_"} or "_target_" not in part:
            continue
        try:
            kind = component_type(group, locate(str(part._target_)))
        except ConfigError:  # it is refused where it is validated
            continue
        known = {field.alias or name for name, field in kind.model_fields.items()}
        takes_all = kind.model_config.get("extra") == "allow"
        for key in [] if takes_all else sorted(part.keys() - known):
            if f"{group}.{key}" not in typed:
                with read_write(cfg), open_dict(cfg):
                    value = show(part.pop(key))
                lines.append(f"{group}.{key}={value}: left out, {part._target_} has no such key")
    return lines


def conf_dir() -> Path:
    """Return the folder of configuration files: beside the package in a checkout, else in it."""
    package = Path(__file__).resolve().parent.parent
    checkout = package.parent / "conf"
    return checkout if (checkout / "config.yaml").is_file() else package / "conf"


class Composer:
    """Composes configurations from our files, and from those that a command line adds.

    The primary one, ``name`` without ``.yaml``, lies in ``config_path``, absolute or ``pkg://…``
    (None: ours); ``config_dir`` is searched as well. Raises ConfigError if that is not there.
    """

    def __init__(
        self, name: str = "config", config_path: str | None = None, config_dir: str | None = None
    ) -> None:
        register_resolvers()
        path = config_path or str(conf_dir())
        folder = Path(config_dir).absolute() if config_dir else None
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"--config-dir={config_dir}: there is no folder {folder}")
        self.name = name
        self.loader = config_loader(path, folder)

    def parse(self, overrides: Sequence[str]) -> list[Override]:
        """Parse overrides by Hydra's grammar."""
        with translate.composition(self.loader, self.name, overrides):
            return OverridesParser.create(self.loader).parse_overrides(list(overrides))

    def load(self, overrides: Sequence[str], mode: RunMode = RunMode.RUN) -> DictConfig:
        """Compose, Hydra's own part included."""
        with translate.composition(self.loader, self.name, overrides):
            cfg = self.loader.load_configuration(self.name, list(overrides), mode)
        drop_left_over_keys(cfg, overrides)
        return cfg

    def validate(self, cfg: DictConfig, job: int | None = None, place: bool = True) -> None:
        """Validate with ``${hydra:…}`` resolvable, as in the run or in the multirun's job.

        `place` has the run's folder checked too: whether it is free.
        """
        with self.as_job(cfg, job):
            validate_composed(cfg)
            with translate.resolution(cfg):
                folder = cfg.hydra.run.dir if place else None
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


def _refuse_contradictions(args: argparse.Namespace) -> None:
    given = [f"--{mode}" for mode in ("run", "multirun", "cfg", "info") if getattr(args, mode)]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} cannot go together; choose one")
    if args.resolve and args.cfg is None and not args.help:
        raise ConfigError("--resolve goes with --cfg: add --cfg job")


def _refuse_lone_search(cfg: DictConfig) -> None:
    choices = {"sweep": cfg.hydra.runtime.choices.get("sweep"), "sweep.sampler": cfg.sweep.sampler}
    for key, value in choices.items():
        if value not in ("grid", None):
            raise ConfigError(f"{key}={value}: starts many runs; add -m, or leave it out for one")
