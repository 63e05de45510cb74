"""What ``--help`` prints.

Hydra's own way asks for the options of one group at a time and copies everything that it has read
so far each time: a second and more, of which the answer needs a tenth.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence

from hydra._internal.config_repository import IConfigRepository
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf

from eqprop.config.composer import Composer


def help_text(argv: Sequence[str]) -> str | None:
    """What answers these arguments, if they ask for help: ``hydra.help``'s template filled in.

    Raises:
        ConfigError: one line, if what they ask for beside it cannot be composed.
        SystemExit: from argparse, as it answers unknown flags.
    """
    parser = get_args_parser()
    args = parser.parse_args(list(argv))
    if not args.help:
        return None
    composer = Composer(args.config_name or "config", args.config_path, args.config_dir)
    composer.parse(args.overrides)
    cfg = composer.load(args.overrides)
    groups = sorted(_groups(composer.repository(args.overrides)))
    filled = string.Template(cfg.hydra.help.template).safe_substitute(
        FLAGS_HELP=Hydra.format_args_help(parser),
        HYDRA_CONFIG_GROUPS="".join(line for name, line in groups if _is_hydra_s(name)),
        APP_CONFIG_GROUPS="".join(line for name, line in groups if not _is_hydra_s(name)),
    )
    if "$CONFIG" in cfg.hydra.help.template:
        filled = string.Template(filled).safe_substitute(CONFIG=_ours(cfg, args.resolve))
    return filled


def _groups(files: IConfigRepository, parent: str = "") -> Iterator[tuple[str, str]]:
    """Each group that has options, with the line that names them."""
    for name in files.get_group_options(parent, ObjectType.GROUP):
        group = f"{parent}/{name}" if parent else name
        options = sorted(files.get_group_options(group, ObjectType.CONFIG))
        if options:
            yield group, f"{group}: {', '.join(options)}\n"
        yield from _groups(files, group)


def _is_hydra_s(group: str) -> bool:
    return group.partition("/")[0] == "hydra"


def _ours(cfg: DictConfig, resolve: bool) -> str:
    ours = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    return OmegaConf.to_yaml(ours, resolve=resolve)
