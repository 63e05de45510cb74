"""What a sweep varies: axes, read from overrides in Hydra's grammar.

Hydra's `key=a,b`, `choice()`, `range()` and `glob()` are lists of values; `interval()` is an
interval, in steps of a factor where it is tagged `log`, of whole numbers where it is cast by `int`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, cast

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from eqprop.run.errors import ConfigError
from eqprop.run.text import hint, show

TAGS = ("log",)


@dataclass(frozen=True)
class Interval:
    """Numbers from ``low`` to ``high``, both included.

    Attributes:
        log: whether a factor counts, not a difference.
        step: the distance between neighbours; None where any number between may be taken.
        whole: whether they are whole numbers.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False


@dataclass(frozen=True)
class Axis:
    """One thing that varies: the key as Hydra wants it, and its values or its interval.

    Attributes:
        key: with Hydra's ``+`` and ``@package``, where they were given.
        text: what was written behind the ``=``.
        values: each as it stands in an override; empty where there is an interval only.
        interval: numbers in order, where that is what they are; else None.
    """

    key: str
    text: str
    values: tuple[str, ...]
    interval: Interval | None = None

    @property
    def name(self) -> str:
        """The key without signs."""
        return self.key.lstrip("+~")

    def word(self, value: object) -> str:
        """The override that gives the axis this value."""
        return f"{self.key}={value}"


@dataclass(frozen=True)
class Space:
    """Overrides that every job has, axes, and the order in which their keys were given."""

    fixed: tuple[str, ...]
    axes: tuple[Axis, ...]
    order: tuple[str, ...] = ()

    def job(self, point: Sequence[str]) -> list[str]:
        """The overrides of a job at a point, in order: one may be about what another made."""
        places = {key: place for place, key in enumerate(self.order)}
        words = [*self.fixed, *point]
        return sorted(words, key=lambda word: places.get(_key(word), len(places)))

    def texts(self) -> dict[str, str]:
        """Each axis as it was written."""
        return {axis.name: axis.text for axis in self.axes}

    def cells(self) -> Iterator[tuple[str, ...]]:
        """The overrides of every cell of the grid, the last axis fastest.

        Raises:
            ConfigError: if an axis is an interval, which no grid can take.
        """
        for axis in self.axes:
            if not axis.values:
                raise ConfigError(
                    f"{axis.key}={axis.text}: a grid needs values, not an interval; list some, "
                    "or search with sweep.sampler=tpe sweep.n_trials=N"
                )
        return itertools.product(*([axis.word(v) for v in axis.values] for axis in self.axes))


def asked(master: DictConfig) -> list[str]:
    """What a multirun varies and fixes: its option's own parameters, then the command line's."""
    params = OmegaConf.select(master, "hydra.sweeper.params") or {}
    return [*(f"{key}={value}" for key, value in params.items()), *given(master, "task")]


def given(cfg: DictConfig, part: Literal["task", "hydra"]) -> list[str]:
    """The overrides of a command line as they were written, interpolations in them included."""
    words = OmegaConf.to_container(cfg.hydra.overrides[part], resolve=False)
    return [str(word) for word in cast("list[Any]", words)]


def read(overrides: Sequence[Override]) -> Space:
    """The space that overrides span; a later one replaces an earlier one of its key.

    Raises:
        ConfigError: one line on an interval without numbers in it, or a tag that means nothing.
    """
    last: dict[str, Override] = {}
    for override in overrides:
        last[override.get_key_element().lstrip("+")] = override
    fixed, axes = [], []
    for override in last.values():
        if override.is_sweep_override():
            axes.append(_axis(override))
        else:
            fixed.append(_word(override))
    return Space(tuple(fixed), tuple(axes), tuple(last))


def plain(override: Override) -> str:
    """An override by its key and value: the same for ``lr=1e-3`` and ``lr=0.001``."""
    return f"{override.get_key_element().lstrip('+')}={override.value()!r}"


def hash_of(cell: Iterable[str]) -> str:
    """A hash of a cell's plain overrides, in any order."""
    return hashlib.sha256(json.dumps(sorted(cell)).encode()).hexdigest()[:16]


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _word(override: Override) -> str:
    key = override.get_key_element()
    bare = override.is_delete() and override.value() is None
    return key if bare else f"{key}={override.get_value_element_as_str()}"


def _axis(override: Override) -> Axis:
    key = override.get_key_element()
    text = str(override.input_line).partition("=")[2]
    sweep = cast("Any", override.value())
    for tag in sorted(getattr(sweep, "tags", ())):
        if tag not in TAGS:
            raise ConfigError(f"{key}={text}: no tag is called {show(tag)}{hint(tag, TAGS)}")
    log = "log" in getattr(sweep, "tags", ())
    if not override.is_discrete_sweep():
        return Axis(key, text, (), _interval(f"{key}={text}", sweep, log))
    if log:
        raise ConfigError(f"{key}={text}: the tag log goes with interval(), not with a list")
    values = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if not values:
        raise ConfigError(f"{key}={text}: there is no value in it")
    return Axis(key, text, values, _steps(values, sweep) if override.is_range_sweep() else None)


def _interval(given: str, sweep: Any, log: bool) -> Interval:
    low, high = sweep.start, sweep.end
    whole = isinstance(low, int) and isinstance(high, int)
    if not low < high:
        raise ConfigError(f"{given}: the first number must be less than the second")
    if log and low <= 0:
        raise ConfigError(f"{given}: with the tag log both numbers must be > 0")
    return Interval(low, high, log, whole=whole)


def _steps(values: Sequence[str], sweep: Any) -> Interval | None:
    """A range's values as numbers in order, of which a sampler can make more than of names."""
    if len(values) < 2 or sweep.shuffle:
        return None
    whole = all(isinstance(n, int) for n in (sweep.start, sweep.stop, sweep.step))
    step = Decimal(str(abs(sweep.step)))
    low = min(Decimal(values[0]), Decimal(values[-1]))
    high = low + step * (len(values) - 1)  # the values themselves carry rounding errors
    if whole:
        return Interval(int(low), int(high), step=int(step), whole=True)
    return Interval(float(low), float(high), step=float(step))
