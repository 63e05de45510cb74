"""Composing the configuration in advance, so that a mistake is one line before anything begins.

`check` does what Hydra's main is about to do with the same command line, without running anything:
Hydra's own messages are several lines, point at "use +key", and come as tracebacks here and there.
torch is not imported, unless somebody's own class needs it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write

from eqprop.config import translate
from eqprop.config.composer import Composer, conf_dir, resolved, validate_composed
from eqprop.config.multirun import check_jobs
from eqprop.config.slug import register_resolvers
from eqprop.run.errors import ConfigError

__all__ = ["check", "compose", "conf_dir", "register_resolvers", "validate_composed"]


def check(argv: Sequence[str]) -> DictConfig | None:
    """Compose and validate what the command line asks for: one run, or the jobs of a multirun.

    Where it asks for help or for the configuration to be shown, it is composed only. Returns the
    configuration of a single run, Hydra's own part included, else None.

    Args:
        argv: the arguments without the program's name.

    Raises:
        ConfigError: one line on the first mistake.
        SystemExit: from argparse, on an unknown flag (2) and on ``--version`` (0).
    """
    register_resolvers()
    args = get_args_parser().parse_args(list(argv))
    if args.shell_completion or args.hydra_help or args.experimental_rerun is not None:
        return None
    _refuse_contradictions(args)
    composer = Composer(args.config_name or "config", args.config_path, args.config_dir)
    overrides = composer.parse(args.overrides)
    if args.help or args.info is not None or args.cfg is not None:
        cfg = composer.load(args.overrides)
        if args.resolve and args.cfg is not None:
            with composer.as_job(cfg, None):
                resolved(cfg, throw_on_missing=False)
    elif args.multirun or _asks_for_multirun(args.overrides, overrides, composer):
        check_jobs(args.overrides, composer)
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


def _refuse_contradictions(args: argparse.Namespace) -> None:
    modes = {
        "--run": args.run,
        "--multirun": args.multirun,
        "--cfg": args.cfg is not None,
        "--info": args.info is not None,
    }
    given = [flag for flag, on in modes.items() if on]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} cannot go together; choose one")
    if args.resolve and args.cfg is None and not args.help:
        raise ConfigError("--resolve goes with --cfg: add --cfg job")


def _refuse_lone_search(cfg: DictConfig) -> None:
    option = cfg.hydra.runtime.choices.get("sweep", "grid")
    if option != "grid" or cfg.sweep.sampler != "grid":
        given = "sweep.sampler" if option == "grid" else "sweep"
        value = cfg.sweep.sampler if option == "grid" else option
        raise ConfigError(f"{given}={value}: starts many runs; add -m, or leave it out for one")


def _asks_for_multirun(lines: Sequence[str], overrides: Sequence[Override], by: Composer) -> bool:
    """Whether `hydra.mode` makes it a multirun; several values without one are refused."""
    sweeps = [override for override in overrides if override.is_sweep_override()]
    named = any(override.key_or_group == "hydra.mode" for override in overrides)
    if not sweeps and not named:
        return False
    if by.load(lines, RunMode.MULTIRUN, any_sweep=True).hydra.mode == RunMode.MULTIRUN:
        return True
    if sweeps:
        raise ConfigError(translate.several(str(sweeps[0].input_line)))
    return False
