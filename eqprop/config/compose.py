"""Composing the configuration in advance, so that a mistake is one line before anything begins.

Hydra's own messages are several lines, point at "use +key", and come as tracebacks here and there.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast, get_args

from hydra.conf import RuntimeConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from pydantic.fields import FieldInfo

from eqprop.config import paths, translate
from eqprop.config.folder import conf_dir
from eqprop.config.hydra_internals import config_loader, get_args_parser
from eqprop.config.signature import component_type
from eqprop.config.slug import register_resolvers
from eqprop.config.targets import locate
from eqprop.config.validation import refuse_credentials, resolved, validate_composed
from eqprop.run.errors import ConfigError
from eqprop.run.folder import refuse_used
from eqprop.run.paths import decoded
from eqprop.run.text import key_of, show

CHANGEABLE = {
    *("model", "cost", "optimizer", "scheduler", "dataset", "dynamics", "estimator"),
    *("noise", "ablation"),
}
"""Groups whose option may be chosen after something else has set keys of another."""


def check(argv: Sequence[str]) -> DictConfig | None:
    """Compose and validate what the command line asks for: one run, or a multirun without its jobs.

    Returns the configuration of the run or multirun, Hydra's own part included, else None. Raises
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
        return composer.load(args.overrides, RunMode.MULTIRUN)  # its sweeper checks the jobs
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


def drop_left_over_keys(
    cfg: DictConfig, overrides: Sequence[str], runtime: RuntimeConf
) -> list[str]:
    """Take out keys of a part's former option that what stands in its place does not have.

    An experiment sets ``estimator.beta``; with ``estimator=backprop`` behind it, nothing has one.
    Or it sets ``optimizer._target_``, over an option whose keys that class does not take. A key
    that is typed itself stays, to be refused; so does one that the experiment gives beside its own
    ``_target_``. ``runtime`` is Hydra's own part of that name. Returns a line for each part that
    lost some.
    """
    typed = {key_of(override) for override in overrides}
    lines = []
    for group in sorted(CHANGEABLE & cfg.keys()):
        part = cfg[group]
        if f"{group}=none" in overrides and part is not None:  # what keys are left have no option
            with read_write(cfg), open_dict(cfg):
                cfg[group] = None
            lines.append(f"{group}={show(part)}: left out, as {group}=none")
        if not isinstance(part := cfg[group], DictConfig) or "_target_" not in part:
            continue
        own: Any = OmegaConf.to_container(part)
        kept = {key for key in own if f"{group}.{key}" in typed}
        if f"{group}._target_" not in typed:
            option = _option_unlike(part._target_, runtime, group)
            if option is not None and group in typed:  # the option's class is what was asked for
                chosen = f"{group}={runtime.choices[group]}"
                lines.append(f"{group}._target_={part._target_}: left out, as {chosen}")
                with read_write(cfg):
                    part._target_ = option["_target_"]
            elif option is not None:
                kept |= {key for key in own if key not in option or option[key] != own[key]}
            elif group not in typed:
                continue
        try:
            kind = component_type(group, locate(str(part._target_)))
        except ConfigError:  # it is refused where it is validated
            continue
        fields = {field.alias or name: field for name, field in kind.model_fields.items()}
        takes_all = kind.model_config.get("extra") == "allow"
        gone = []
        for key in [key for key in own if key not in kept]:
            unknown = key not in fields and not takes_all
            if unknown or (key in fields and part[key] is None and _has_its_own(fields[key])):
                with read_write(cfg), open_dict(cfg):
                    gone.append(f"{group}.{key}={show(part.pop(key))}")
        if gone:
            lines.append(f"{', '.join(gone)}: left out, {part._target_} does not take that")
    return lines


def _option_unlike(target: str, runtime: RuntimeConf, group: str) -> dict[Any, Any] | None:
    """What the files of the group's option hold if they name another class than that; else None."""
    sources = [source for source in runtime.config_sources if source.schema == "file"]
    names = [f"{group}/{runtime.choices.get(group)}.yaml"]
    found: dict[Any, Any] = {}
    for name in names:
        paths = [Path(source.path, name) for source in sources]
        file = next((path for path in paths if path.is_file()), None)
        if file is None:
            return None
        text = decoded(file)
        if re.search(rf"^_target_: {re.escape(target)}\b", text, re.MULTILINE):  # as a rule
            return None
        read: Any = OmegaConf.to_container(OmegaConf.create(text))
        below = [word for word in read.pop("defaults", []) if isinstance(word, str)]
        names += [f"{group}/{word}.yaml" for word in below if word != "_self_"]
        found = {**read, **found}
    return found if found.get("_target_", target) != target else None


def _has_its_own(field: FieldInfo) -> bool:
    """Whether a key that is null, "as the class has it", must be left out for that."""
    is_any = field.annotation is Any
    return not (field.is_required() or is_any or type(None) in get_args(field.annotation))


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
        """Compose, Hydra's own part included; ``~`` and variables in paths are replaced."""
        translate.refuse_none(self.loader, overrides)
        with translate.composition(self.loader, self.name, overrides):
            cfg = self.loader.load_configuration(self.name, list(overrides), mode)
            if words := paths.words(cfg):
                cfg = self.loader.load_configuration(self.name, [*overrides, *words], mode)
        drop_left_over_keys(cfg, overrides, cfg.hydra.runtime)
        refuse_credentials(cast("dict[Any, Any]", OmegaConf.to_container(cfg)))
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
            raise ConfigError(f"{key}={value}: starts many runs; add -m, or {key}=grid for one")
