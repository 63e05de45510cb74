"""A sweep as its command line describes it: what varies, what all jobs have, where it goes."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from eqprop.config import explain, translate
from eqprop.config.compose import Composer
from eqprop.config.schema import Sweep
from eqprop.run.errors import ConfigError
from eqprop.run.text import brief, key_of
from eqprop.sweep.space import Axis, read_axis

Params = dict[str, Any]
"""A point of a sweep: a value for each axis, by its name."""

CHECKED = 64
"""How many jobs are composed and validated before a sweep starts, at most: it takes seconds."""

_FREE = ("tracking", "paths", "checkpoint", "resume", "rerun", "sweep")
_FREE_KEYS = ("trainer.progress", "trainer.summary", "dataset.download", "device.threads")
_NOT_THE_JOBS = ("sweep", "sweeper", "launcher", "mode", "run")  # parts of Hydra's configuration


@dataclass(frozen=True)
class Plan:
    """A sweep, read from its command line."""

    composer: Composer
    options: Sweep
    folder: Path  # hydra.sweep.dir, absolute
    entries: tuple[str | Axis, ...]  # in the order given: one override may need another
    hydra: tuple[str, ...]  # the command's overrides of Hydra's own keys
    program: tuple[str, ...] = ()  # the words that start a job, before its overrides
    threads: int | None = None  # CPU threads of each job; None: left to the job

    @property
    def axes(self) -> list[Axis]:
        """What varies."""
        return [entry for entry in self.entries if isinstance(entry, Axis)]

    def point(self, params: Params) -> list[str]:
        """Return the overrides that make a point."""
        return [axis.word(params[axis.name]) for axis in self.axes]

    def words(self, params: Params) -> list[str]:
        """Return all overrides of a job at a point."""
        return [e if isinstance(e, str) else e.word(params[e.name]) for e in self.entries]

    def job_words(self, params: Params, number: int, seed: int | None) -> list[str]:
        """Return the arguments of the job of this number, the seed set where there is one."""
        words = self.words(params)
        if seed is not None:
            words = [*(word for word in words if key_of(word) != "seed"), f"seed={seed}"]
        parts = ((word, key_of(word).replace("/", ".").split(".")[1]) for word in self.hydra)
        own = [word for word, part in parts if part not in _NOT_THE_JOBS]
        return [*words, *own, f"hydra.job.num={number}", f"hydra.job.id={number}"]

    def compose(self, params: Params) -> DictConfig:
        """Return the configuration of a job at a point, Hydra's own part included."""
        return self.composer.load([*self.hydra, *self.words(params)])

    def place(self, params: Params, number: int) -> tuple[Path, int | None]:
        """Return the folder of a job, and its seed where a point is repeated with several."""
        cfg = self.compose(params)
        with self.composer.as_job(cfg, number), translate.resolution(cfg):
            subdir = OmegaConf.select(cfg, "hydra.sweep.subdir", throw_on_missing=True)
        return self.folder / str(subdir), int(cfg.seed) if self.options.repeats > 1 else None

    def cells(self) -> Iterator[Params]:
        """Return every point of the grid, the last axis fastest."""
        return self._named(itertools.product(*(axis.values for axis in self.axes)))

    def sample(self, most: int = CHECKED) -> list[Params]:
        """Return all points, or so many of them that include every value of every axis.

        The two ends of an interval stand for it.
        """
        lists = [axis.samples for axis in self.axes]
        longest = max(map(len, lists), default=0)
        diagonal = [tuple(values[k % len(values)] for values in lists) for k in range(longest)]
        found = list(itertools.islice(itertools.product(*lists), most + 1))
        if len(found) > most:
            found = list(dict.fromkeys([*diagonal, *found]))[:most]
        return list(self._named(found))

    def identity(self) -> dict[str, Any]:
        """Return what all commands of this sweep have in common.

        A grid may get more values: the cells that it has are still cells.
        """
        varied = {axis.name: "varied" for axis in self.axes if not self.options.searches}
        words = [e if isinstance(e, str) else f"{e.key}={e.text}" for e in self.entries]
        return {**_decisive(words, self.options.model_dump()), **varied}

    def _named(self, points: Iterable[tuple[Any, ...]]) -> Iterator[Params]:
        names = [axis.name for axis in self.axes]
        return (dict(zip(names, values, strict=True)) for values in points)


def read(composer: Composer, master: DictConfig, program: Sequence[str] = ()) -> Plan:
    """Return the plan of a multirun.

    Raises:
        ConfigError: one line if its keys contradict each other.
    """
    with composer.as_job(master, 0), translate.resolution(master):
        given: Any = OmegaConf.to_container(master.sweep, resolve=True)
        folder = str(OmegaConf.select(master, "hydra.sweep.dir", throw_on_missing=True))
    overrides = composer.parse(_task_words(master))
    entries: list[str | Axis] = []
    for override in {o.get_key_element().lstrip("+"): o for o in overrides}.values():
        line, varies = str(override.input_line), override.is_sweep_override()
        if not _is_about(line, "sweep"):
            entries.append(read_axis(composer.parse, override) if varies else line)
        elif varies:
            raise ConfigError(f"{line}: belongs to the sweep as a whole; give it one value")
    if master.hydra.runtime.choices.get("sweep") != "grid":
        entries.append("sweep=grid")  # a job is a single run
    if given.get("sampler") != "grid":
        entries.append("sweep.sampler=grid")  # an experiment may have set it
    plan = Plan(
        composer,
        explain.validated(Sweep, "sweep", given),
        Path(os.path.abspath(folder)),
        tuple(entries),
        tuple(_raw(master.hydra.overrides.hydra)),
        tuple(program),
    )
    _refuse_contradictions(plan.axes, plan.options)
    return plan


def check(plan: Plan) -> None:
    """Validate the jobs of a sweep. Of a grid that is wrong in some cells only, it warns.

    Raises:
        ConfigError: one line on the first mistake, with the overrides of its job.
    """
    points, wrong = plan.sample(), list[ConfigError]()
    for number, params in enumerate(points):
        words = [axis.word(params[axis.name]) for axis in plan.axes if len(axis.samples) > 1]
        job = f" (in the job {brief(' '.join(words))})" if words else ""
        try:
            cfg = plan.compose(params)
        except ConfigError as error:  # an option or a key that does not exist: a slip of the pen
            raise ConfigError(f"{error}{job}") from error
        try:
            plan.composer.validate(cfg, number, place=False)
        except ConfigError as error:
            wrong.append(ConfigError(f"{error}{job}"))
    if wrong and (len(wrong) == len(points) or plan.options.searches):
        raise wrong[0]
    for mistake in wrong:
        print(f"warning: {mistake}: it will fail, the others run", file=sys.stderr)


def search_hash(master: DictConfig) -> str:
    """Return six hexadecimal digits that name the search a multirun's configuration asks for.

    They do not depend on how many points there are, how they run or where the results go.
    """
    options: Any = OmegaConf.to_container(master.sweep, resolve=True)
    decisive = _decisive(_task_words(master), {**Sweep().model_dump(), **options})
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:6]


def _task_words(master: DictConfig) -> list[str]:
    """Return what the option of ``sweep`` varies, then what the command line says instead."""
    params = OmegaConf.select(master, "hydra.sweeper.params") or {}
    words = [f"{key}={value}" for key, value in params.items()]
    return [*words, *_raw(master.hydra.overrides.task)]


def _raw(words: ListConfig) -> list[str]:
    """Return overrides as they were given, with their interpolations."""
    found: Any = OmegaConf.to_container(words, resolve=False)
    return list(map(str, found))


def _decisive(words: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides and keys of ``sweep`` that decide which runs there are, and how."""
    keys = ["sampler", "repeats"]
    keys += ["seed", "pruner"] if options["sampler"] != "grid" else []
    own = [word for word in words if not _is_about(word, *_FREE) and key_of(word) not in _FREE_KEYS]
    given = {key_of(word): word.partition("=")[2] for word in own}
    return {**given, **{f"sweep.{key}": options[key] for key in keys}}


def _is_about(word: str, *parts: str) -> bool:
    return key_of(word).partition(".")[0] in parts


def _refuse_contradictions(axes: Sequence[Axis], options: Sweep) -> None:
    if (line := options.contradiction()) is not None:
        raise ConfigError(line)
    for axis in axes:
        given = f"{axis.key}={axis.text}"
        if axis.name == "seed" and (options.searches or options.repeats > 1):
            raise ConfigError(f"{given}: leave it out, and choose sweep.repeats=N")
        if not axis.values and not options.searches:
            how = "list some, or search with sweep.sampler=tpe sweep.n_trials=N"
            raise ConfigError(f"{given}: a grid needs values, not an interval; {how}")
    if options.searches and not axes:
        raise ConfigError(
            f"sweep.sampler={options.sampler}: nothing to search; give a key several values or an "
            "interval, as in optimizer.lr=interval(1e-4,1e-2)"
        )
