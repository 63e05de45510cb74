"""The command line before Hydra gets it: checked, with what ``resume=`` or ``rerun=`` recorded."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from eqprop.config.compose import check
from eqprop.config.hydra_internals import get_args_parser
from eqprop.config.validation import resolved
from eqprop.run.errors import ConfigError
from eqprop.run.lock import read_status
from eqprop.run.resume import is_file_name, read_yaml, refuse_other_defaults
from eqprop.run.text import key_of, quoted, show

_OWN = ("resume", "rerun")


def prepared(argv: Sequence[str]) -> list[str]:
    """The arguments as Hydra shall get them, checked: it would only fail later, and in many lines.

    Raises:
        ConfigError: one line on the first mistake.
        SystemExit: from argparse, on an unknown flag (2) and on ``--version`` (0).
    """
    arguments = with_recorded(argv)
    cfg = check(arguments)
    if cfg is None:  # there will be no run in this process
        return arguments
    _refuse_other_rerun(cfg)
    _warn_of_new_folder(cfg)
    if cfg.hydra.output_subdir is None:  # as conf/config.yaml has it
        return arguments
    flags, words = _split(arguments)
    # Hydra's own record would hold secrets until ours replaces it, and write over a run to resume
    return [*flags, *words, "hydra.output_subdir=null"]


def with_recorded(argv: Sequence[str]) -> list[str]:
    """The arguments with those of the run that ``resume=`` or ``rerun=`` names put before them.

    Raises:
        ConfigError: if there is no such run, or if they contradict the rest of the command.
    """
    given_flags, words = _split(argv)
    asked = {
        key: value
        for word in words
        if (key := key_of(word)) in _OWN
        if (value := _value(word)) not in ("", "null") and (key, value) != ("resume", "auto")
    }
    if not asked:
        return list(argv)
    if len(asked) > 1:
        raise ConfigError("resume and rerun cannot go together; choose one")
    ((key, value),) = asked.items()
    folder = run_folder(key, value)
    if {"-m", "--multirun"}.intersection(given_flags):
        raise ConfigError(f"{key}={value}: goes with one run, not with a multirun")
    flags, recorded = recorded_command(folder)
    if key == "resume":
        if any(key_of(word) == "hydra.run.dir" for word in words):
            how = "the run stays in its folder; leave hydra.run.dir out"
            raise ConfigError(f"resume={value}: {how}")
        words.append(f"hydra.run.dir={quoted(str(folder))}")
    return [*flags, *given_flags, *merge(recorded, words)]


def run_folder(key: str, value: str) -> Path:
    """The folder of the run that ``resume=value`` names, by itself or by a checkpoint in it.

    Raises:
        ConfigError: if there is no run.
    """
    path = Path(value)
    if is_file_name(value) and key == "resume":
        path = path.parent.parent
    if not path.is_dir():
        raise ConfigError(f"{key}={show(value)}: there is no folder {path}")
    if read_status(path) is None:
        raise ConfigError(f"{key}={show(value)}: {path} holds no run (no status.json)")
    return path


def recorded_command(folder: Path) -> tuple[list[str], list[str]]:
    """The flags and the overrides that the run in ``folder`` was started with."""
    record = folder / ".hydra"
    overrides, hydra = read_yaml(record / "overrides.yaml"), read_yaml(record / "hydra.yaml")
    if not isinstance(overrides, list):
        raise ConfigError(f"{folder} holds no recorded command (.hydra/overrides.yaml)")
    words = [str(word) for word in overrides if key_of(str(word)) not in _OWN]
    if hydra is None:
        return [], words
    try:
        settings: Any = hydra["hydra"]
        own = [str(word) for word in settings["overrides"]["hydra"]]
        name, sources = settings["job"]["config_name"], settings["runtime"]["config_sources"]
        flags = [f"--config-name={name}"] if name not in (None, "config") else []
        given = [(source["path"], source["schema"], source["provider"]) for source in sources]
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{record / 'hydra.yaml'} is no record of a command") from error
    flags += [f"--config-dir={path}" for path, *by in given if by == ["file", "command-line"]]
    return flags, [*words, *(word for word in own if key_of(word) == "hydra.searchpath")]


def merge(recorded: Sequence[str], new: Sequence[str]) -> list[str]:
    """Overrides of which none is given twice: new ones replace the recorded ones of their key.

    A new choice of a group's option drops what was recorded of the old option's keys.
    """
    keys = [key_of(word) for word in new]
    groups = [f"{key}." if key != "tracking" else "tracking.trackers." for key in keys]

    def stays(word: str) -> bool:
        key = key_of(word)
        return key not in keys and not any(key.startswith(group) for group in groups)

    return [*filter(stays, recorded), *new]


def how_to_go_on(folder: Path) -> str:
    """The command, quoted for a shell, that goes on with the run in ``folder``."""
    program = sys.argv[0] or "eqprop-train"
    start = ["python", program] if program.endswith(".py") else [Path(program).name]
    with suppress(ValueError):
        folder = folder.relative_to(Path.cwd())
    return shlex.join([*start, f"resume={quoted(str(folder))}"])


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags with their values, and the overrides, which Hydra takes in one piece only."""
    words = list(get_args_parser().parse_args(list(argv)).overrides)
    return [word for word in argv if word not in words], words


def _value(word: str) -> str:
    value = word.partition("=")[2].strip()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1].replace(f"\\{value[0]}", value[0])
    return value


def _refuse_other_rerun(cfg: DictConfig) -> None:
    """Refuse to start a recorded run again where its command now means something else."""
    if cfg.rerun is None:
        return
    folder = Path(cfg.rerun)
    flags, words = recorded_command(folder)
    recorded = check([*flags, *words])
    if recorded is not None:
        refuse_other_defaults(folder, resolved(recorded))


def _warn_of_new_folder(cfg: DictConfig) -> None:
    """Say that ``resume=auto`` has nothing to go on with where each command has its own folder."""
    if cfg.resume != "auto":
        return
    run: Any = OmegaConf.to_container(cfg.hydra.run, resolve=False)
    if "${now:" in str(run["dir"]):
        print(
            "warning: resume=auto: hydra.run.dir is a new folder for every command, so this is a "
            "new run; give hydra.run.dir=DIR, the same every time",
            file=sys.stderr,
        )
