"""The command line before Hydra gets it, with what ``resume=`` recorded; how a failure is told."""

from __future__ import annotations

import errno
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from eqprop.cli.words import parsed, split
from eqprop.config import paths
from eqprop.config.compose import check
from eqprop.config.effect import without_effect
from eqprop.config.validation import resolved
from eqprop.run.errors import TRACEBACK, ConfigError, UserError
from eqprop.run.lock import read_status
from eqprop.run.redact import redact
from eqprop.run.resume import is_file_name, read_yaml, refuse_other_defaults
from eqprop.run.text import key_of, one_line, quoted, show

log = logging.getLogger(__name__)
_OWN = ("resume", "rerun")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def prepared(argv: Sequence[str]) -> list[str]:
    """The arguments as Hydra shall get them, checked: it would only fail later, and in many lines.

    ConfigError on the first mistake; argparse exits on an unknown flag (2) and ``--version`` (0).
    """
    argv = [paths.in_home(word) for word in argv]
    typed = parsed(argv)
    arguments = with_recorded(argv)
    cfg = check(arguments)
    if cfg is None:  # there will be no run
        return arguments
    for line in without_effect(cfg, typed.overrides, typed.multirun):
        print(f"warning: {line}", file=sys.stderr)
    flags, _ = split(arguments)
    words = _words(cfg)
    if typed.multirun:
        return [*flags, *words]
    _refuse_other_rerun(cfg)
    if cfg.resume == "auto" and "${now:" in str(OmegaConf.to_container(cfg.hydra.run)):
        what = "hydra.run.dir is a new folder for every command; give hydra.run.dir=DIR"
        print(f"warning: resume=auto: {what}, the same every time", file=sys.stderr)
    if cfg.hydra.output_subdir is None:  # as conf/config.yaml has it
        return [*flags, *words]
    # Hydra's own record would hold secrets until ours replaces it, and write over a run to resume
    return [*flags, *words, "hydra.output_subdir=null"]


def with_recorded(argv: Sequence[str]) -> list[str]:
    """The arguments after those of the run that they name; ConfigError if the two contradict."""
    given_flags, words = split(argv)
    asked = {key_of(word): _value(word) for word in words if key_of(word) in _OWN}
    asked = {key: value for key, value in asked.items() if value not in ("", "null")}
    if asked in ({}, {"resume": "auto"}):
        return list(argv)
    if len(asked) > 1:
        raise ConfigError("resume and rerun cannot go together; choose one")
    ((key, value),) = asked.items()
    folder = run_folder(key, value)
    if {"-m", "--multirun"}.intersection(given_flags):
        raise ConfigError(f"{key}={value}: goes with one run, not with a multirun")
    flags, recorded = recorded_command(folder)
    if key == "resume":
        if "hydra.run.dir" in map(key_of, words):
            raise ConfigError(f"resume={value}: a run stays in its folder; leave hydra.run.dir out")
        words.append(f"hydra.run.dir={quoted(str(folder))}")
    return [*flags, *given_flags, *merge(recorded, words)]


def run_folder(key: str, value: str) -> Path:
    """The folder that ``resume=value`` names, by itself or by a checkpoint; ConfigError: no run."""
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
    settings = hydra["hydra"]
    name, sources = settings["job"]["config_name"], settings["runtime"]["config_sources"]
    flags = [f"--config-name={name}"] if name not in (None, "config") else []
    flags += [f"--config-dir={s['path']}" for s in sources if s["provider"] == "command-line"]
    own = settings["overrides"]["hydra"]
    return flags, [*words, *(word for word in own if key_of(word) == "hydra.searchpath")]


def merge(recorded: Sequence[str], new: Sequence[str]) -> list[str]:
    """The overrides, of which new ones replace recorded ones of their key.

    A new choice of a group's option drops what was recorded of the old option's keys.
    """
    keys = [key_of(word) for word in new]
    groups = tuple(f"{key}." if key != "tracking" else "tracking.trackers." for key in keys)
    kept = [w for w in recorded if key_of(w) not in keys and not key_of(w).startswith(groups)]
    return [*kept, *new]


def how_to_go_on(folder: Path) -> str:
    """The command, quoted for a shell, that goes on with the run in ``folder``."""
    program = sys.argv[0] or "eqprop-train"
    start = ["python", program] if program.endswith(".py") else [Path(program).name]
    with suppress(ValueError):
        folder = folder.relative_to(HydraConfig.get().runtime.cwd)  # the command's, with chdir, too
    return shlex.join([*start, f"resume={quoted(str(folder))}"])


def describe(error: BaseException) -> str:
    """One line for any error; one that nobody foresaw says what it is and how to see more."""
    if isinstance(error, UserError):
        return one_line(error, 1000)
    text = redact(one_line(error, 300))
    no_room = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if no_room or "can't allocate memory" in text:
        sizes = "dataset.batch_size, trainer.eval_batch_size, model.hidden or dataset.limit"
        return f"out of memory ({text}); lower {sizes}"
    if "can't start new thread" in text or isinstance(error, BlockingIOError):  # EAGAIN of fork
        limit = "a limit on processes or memory (ulimit -u, a container's pids)"
        return f"cannot start another thread or process ({text}): {limit}; set device.threads=1"
    if isinstance(error, OSError) and error.errno in _FULL:
        return f"cannot write ({text}); free the disk or change paths.outputs"
    return f"{type(error).__name__}: {text} (HYDRA_FULL_ERROR=1 shows the traceback)"


@contextmanager
def reported(folder: Path) -> Iterator[None]:
    """Log what ends a job in one line, and end a single run with its exit status.

    The jobs of a multirun raise on, so that Hydra knows that they failed.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, UserError):
            with suppress(OSError):
                (folder / "traceback.txt").write_text(redact(traceback.format_exc()))
        log.error(describe(error))
        error.reported = True  # type: ignore[attr-defined]
        if TRACEBACK in os.environ or HydraConfig.get().mode is not RunMode.RUN:
            raise
        raise SystemExit(getattr(error, "exit_code", 1)) from error
    except KeyboardInterrupt as error:
        log.error("%s; go on with: %s", str(error) or "interrupted", how_to_go_on(folder))
        raise


def before_the_run(error: Exception) -> Exception:
    """The error as a person's own where Hydra could not make or write a run's folder."""
    if not isinstance(error, OSError):
        return error
    what = f"cannot write the run's folder {error.filename or ''}: {error.strerror or error}"
    how = "set hydra.run.dir or paths.outputs to a folder that can be written"
    return ConfigError(f"{what}; {how}")


def _words(cfg: DictConfig) -> list[str]:
    """The overrides that a configuration was composed from, as they were given."""
    given: Any = OmegaConf.to_container(cfg.hydra.overrides, resolve=False)
    return [*map(str, given["task"]), *map(str, given["hydra"])]


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
