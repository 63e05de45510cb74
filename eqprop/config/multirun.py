"""A multirun's jobs, composed and validated before the first of them starts."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra.types import RunMode

from eqprop.config.composer import Composer
from eqprop.run.errors import ConfigError
from eqprop.run.text import brief
from eqprop.sweep import plan, space
from eqprop.sweep.cells import Cells
from eqprop.sweep.space import Axis, Space

CELLS = 64
"""How many jobs of a multirun are composed and checked before it starts, at most."""


def check_jobs(overrides: Sequence[str], composer: Composer) -> None:
    """Compose and validate the jobs that these overrides and the sweeper's own parameters make.

    Where only some cells of a grid are wrong the others are worth running: then it warns.

    Raises:
        ConfigError: one line on the first mistake, with the overrides of its job.
    """
    master = composer.load(overrides, RunMode.MULTIRUN)
    ours = plan.is_ours(master)
    found, is_grid = space.read(composer.parse(space.asked(master))), False
    if ours:
        asked = plan.read(composer, master)
        found, is_grid = asked.space, asked.options.sampler == "grid"
    cells = expand(found)
    jobs = Cells(composer, space.given(master, "hydra"))
    wrong: list[ConfigError] = []
    for number, cell in enumerate(cells):
        own = [word for word in cell if any(word not in other for other in cells)]
        with _naming(own):
            job = jobs.compose(cell)
        try:
            with _naming(own):
                # our own sweeper knows which folders are its jobs', and goes on in them
                composer.validate(job, number, place=not ours)
        except ConfigError as error:
            wrong.append(error)
    if len(wrong) == len(cells) or (wrong and not is_grid):
        raise wrong[0]
    for mistake in wrong:
        print(f"warning: {mistake}: it will fail, the others run", file=sys.stderr)


@contextmanager
def _naming(own: Sequence[str]) -> Iterator[None]:
    """Add to a mistake what is particular to its job."""
    try:
        yield
    except ConfigError as error:
        if not own:
            raise
        raise ConfigError(f"{error} (in the job {brief(' '.join(own))})") from error


def expand(found: Space, most: int = CELLS) -> list[list[str]]:
    """Return the overrides of a sweep's jobs: all of them, or `most`.

    Of more than `most` jobs, those come first that together hold every value of every axis. Of an
    interval its two ends stand for it.
    """
    lists = [[axis.word(value) for value in _values(axis)] for axis in found.axes]
    product = list(itertools.islice(itertools.product(*lists), most + 1))
    if len(product) > most:
        longest = max(len(values) for values in lists)
        diagonal = [tuple(v[k % len(v)] for v in lists) for k in range(min(longest, most))]
        product = list(dict.fromkeys([*diagonal, *product]))[:most]
    return [found.job(cell) for cell in product]


def _values(axis: Axis) -> tuple[object, ...]:
    if axis.values or axis.interval is None:
        return axis.values
    return axis.interval.low, axis.interval.high
