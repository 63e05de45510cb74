"""A sweep from its configuration to its summary."""

from __future__ import annotations

import itertools
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from eqprop.config.composer import Composer
from eqprop.run.errors import ConfigError, RunError
from eqprop.run.files import write_atomically
from eqprop.run.redact import redact
from eqprop.run.signals import listening
from eqprop.run.text import key_of, show
from eqprop.sweep import identity, plan
from eqprop.sweep.book import ELSEWHERE, Book, unwritable
from eqprop.sweep.gpus import divided
from eqprop.sweep.grid import Grid
from eqprop.sweep.job import JobLauncher
from eqprop.sweep.jobs import JobMaker
from eqprop.sweep.launchers import make_launcher
from eqprop.sweep.plan import Plan
from eqprop.sweep.points import Points
from eqprop.sweep.progress import Watched
from eqprop.sweep.pruning import Prunable
from eqprop.sweep.search import Search
from eqprop.sweep.summary import Summary, summarize


def run_sweep(composer: Composer, master: DictConfig) -> Summary:
    """Run, or go on with, the sweep that a multirun's configuration asks for.

    Raises:
        ConfigError: if its folder holds another sweep or is in use.
        Stopped: if a signal ended it; running jobs have saved.
    """
    asked = plan.read(composer, master)
    if _is_fresh(master):
        asked = replace(asked, folder=_new(asked.folder))
    return conduct(asked, _launcher(asked, master), redact(OmegaConf.to_yaml(master)))


def conduct(asked: Plan, launcher: JobLauncher, config: str = "") -> Summary:
    """Run, or go on with, a planned sweep by a launcher, which is closed at the end.

    Raises:
        ConfigError: if its folder holds another sweep or is in use.
        RunError: if its record can no longer be written; running jobs are asked to save.
        Stopped: if a signal ended it; running jobs have saved.
    """
    book = Book(asked.folder)
    try:
        try:
            _identify(book, asked)
            write_atomically(book.folder / "multirun.yaml", config.encode())
        except OSError as error:
            raise unwritable(book.folder, error) from error
        return _run(asked, book, launcher)
    finally:
        book.close()


def _run(asked: Plan, book: Book, launcher: JobLauncher) -> Summary:
    points = _points(asked, book)
    prunable = Prunable(launcher)
    watched = Watched(prunable, _total(asked, book))
    maker = JobMaker(asked, book)
    prunes = asked.options.pruner is not None
    with listening() as stop, stop.deferred():
        try:
            Search(points, maker, book, watched, prunable, stop, prunes).run()
        except BrokenPipeError:  # nobody reads what is printed
            raise
        except OSError as error:
            raise RunError(
                f"cannot write the sweep's record in {book.folder}: {error.strerror or error}; its "
                f"running jobs save and end; then go on with: {_same_command(asked.folder)}"
            ) from error
        finally:
            watched.close()
        summary = summarize(book, asked.options.repeats, points.ended)
        for line in summary.lines:
            watched.console.print(line)
        if stop.requested is not None:
            watched.console.print(f"go on with: {_same_command(asked.folder)}")
        stop.raise_if_requested()
    return summary


def _points(asked: Plan, book: Book) -> Points:
    if asked.options.sampler == "grid":
        return Grid(asked, book)
    from eqprop.sweep import study  # needs Optuna, which a grid does not

    return study.Search(asked, book)


def _launcher(asked: Plan, master: DictConfig) -> JobLauncher:
    options = OmegaConf.to_container(master.hydra.launcher, resolve=True)
    words = [*asked.space.fixed, *(axis.key for axis in asked.space.axes)]
    threads = next((w.partition("=")[2] for w in words if key_of(w) == "device.threads"), None)
    return make_launcher(
        cast("dict[str, Any]", options),
        jobs=asked.options.jobs,
        job_timeout=asked.options.job_timeout,
        threads=int(threads) if threads is not None and threads.isdigit() else None,
        group="-".join(asked.folder.parts[-2:]),
        folder=asked.folder,
        gpus=divided(str(master.device.type), asked.options.jobs, words),
    )


def _total(asked: Plan, book: Book) -> int | None:
    """How many jobs this command will see end, where that is known."""
    ended = sum(line["state"] in ("done", "failed", "pruned") for line in book.jobs.values())
    points = asked.options.n_trials
    if asked.options.sampler == "grid":
        cells = sum(1 for _ in asked.space.cells())
        points = cells if points is None else min(points, cells)
    return None if points is None else max(0, points * asked.options.repeats - ended)


def _identify(book: Book, asked: Plan) -> None:
    """Write down what the sweep is, or refuse to go on with another one."""
    space, settings = asked.space.texts(), identity.settings(asked.options.model_dump())
    if book.about is None:
        point = asked.reference()
        reference = {"overrides": list(point), "config": asked.settings(point)}
        about = {"space": space, "search": settings, "reference": reference}
        return book.describe({"command": sys.argv, **about})
    known = book.about
    changes = [
        *_differences(known["space"], space, asked),
        *_differences(known["search"], settings, None),
    ]
    if not changes:
        reference = known["reference"]
        found = asked.changes(reference["overrides"], reference["config"])
        changes = [f"{key} ({show(old)} → {show(new)})" for key, old, new in found]
    if changes:
        raise ConfigError(
            f"{book.folder} holds another sweep, with other {', '.join(changes)}; {ELSEWHERE}"
        )


def _differences(old: dict[str, Any], new: dict[str, Any], asked: Plan | None) -> list[str]:
    keys = dict.fromkeys([*old, *new])
    grid = asked is not None and asked.options.sampler == "grid"
    return [
        f"{key} ({_text(old, key)} → {_text(new, key)})"
        for key in keys
        if old.get(key) != new.get(key) and not (grid and asked and _grew(asked, key, old))
    ]


def _grew(asked: Plan, key: str, old: dict[str, Any]) -> bool:
    """Whether a grid's axis has got more values and lost none: its cells are still cells."""
    axis = next((axis for axis in asked.space.axes if axis.name == key), None)
    if axis is None or key not in old:
        return False
    (before,) = plan.axes(asked.composer, [f"{axis.key}={old[key]}"])
    return set(before.values) <= set(axis.values)


def _text(texts: dict[str, Any], key: str) -> str:
    return str(texts[key]) if key in texts else "not varied"


def _is_fresh(master: DictConfig) -> bool:
    """Whether every command is to get a folder of its own: the time is in its name."""
    raw = cast("dict[str, Any]", OmegaConf.to_container(master.hydra.sweep, resolve=False))
    return "${now:" in str(raw["dir"])


def _new(folder: Path) -> Path:
    """Make the folder, or one beside it where another sweep began in the same second."""
    for number in itertools.count(1):
        path = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise unwritable(path, error) from error
    raise AssertionError


def _same_command(folder: Path) -> str:
    """The command that goes on with the sweep, quoted for a shell."""
    program, *words = sys.argv
    start = ["python", program] if program.endswith(".py") else [Path(program).name]
    if not any(key_of(word) == "hydra.sweep.dir" for word in words):
        words = [*words, f"hydra.sweep.dir={os.path.relpath(folder)}"]
    return shlex.join([*start, *map(redact, words)])
