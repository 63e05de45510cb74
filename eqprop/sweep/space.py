"""The axes of a sweep, read from overrides in Hydra's grammar.

``key=a,b``, ``choice()``, ``range()`` and ``glob()`` list values; ``interval()`` gives two bounds,
on a logarithmic scale where it is tagged ``log``, of whole numbers where it is cast by ``int``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from hydra.core.override_parser.types import Override
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from eqprop.run.errors import ConfigError
from eqprop.run.text import hint, key_of, show

Parse = Callable[[Sequence[str]], list[Override]]
"""Reads overrides by Hydra's grammar."""

_TAGS = ("log",)


@dataclass(frozen=True)
class Axis:
    """One key that varies."""

    key: str  # with Hydra's ``+`` and ``@package``, where they were given
    text: str  # what was written behind the ``=``
    values: Mapping[Any, str]  # each with its text in an override; empty for an interval
    numbers: FloatDistribution | IntDistribution | None = None  # an interval or a range of integers

    @property
    def name(self) -> str:
        """The key without signs."""
        return self.key.lstrip("+~")

    @property
    def samples(self) -> list[Any]:
        """The listed values, or the two ends of an interval."""
        if self.values or self.numbers is None:
            return list(self.values)
        return [self.numbers.low, self.numbers.high]

    def word(self, value: Any) -> str:
        """Return the override that gives the axis this value."""
        return f"{self.key}={self.values.get(value, repr(value))}"

    def distribution(self, searches: bool) -> BaseDistribution:
        """Return what Optuna draws from; to a grid every value is a category."""
        if searches and self.numbers is not None:
            return self.numbers
        return CategoricalDistribution(list(self.values))


def read_axis(parse: Parse, override: Override) -> Axis:
    """Return the axis that an override with several values spans."""
    key = override.get_key_element()
    text = str(override.input_line).partition("=")[2]
    sweep = cast("Any", override.value())
    tags: set[str] = set(getattr(sweep, "tags", ()))
    for tag in sorted(tags.difference(_TAGS)):
        raise ConfigError(f"{key}={text}: no tag is called {show(tag)}{hint(tag, _TAGS)}")
    if not override.is_discrete_sweep():
        return Axis(key, text, {}, _interval(f"{key}={text}", sweep.start, sweep.end, bool(tags)))
    if tags:
        raise ConfigError(f"{key}={text}: the tag log goes with interval(), not with a list")
    values: dict[Any, str] = {}
    for one in override.sweep_string_iterator():
        values.setdefault(_value(parse, f"{key_of(key)}={one}", one), one)
    if not values:
        raise ConfigError(f"{key}={text}: there is no value in it")
    return Axis(key, text, values, _steps(list(values)) if override.is_range_sweep() else None)


def _value(parse: Parse, word: str, text: str) -> Any:
    """Return a number as one, so that 1e-3 and 0.001 are the same; anything else as its text."""
    value = parse([word])[0].value()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return text
    return value if math.isfinite(value) else text


def _interval(given: str, low: Any, high: Any, log: bool) -> FloatDistribution | IntDistribution:
    if not low < high:
        raise ConfigError(f"{given}: the first number must be less than the second")
    if log and low <= 0:
        raise ConfigError(f"{given}: with the tag log both numbers must be > 0")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log)
    return FloatDistribution(low, high, log)


def _steps(values: list[Any]) -> IntDistribution | None:
    """Return a range of whole numbers as numbers, between which a sampler can interpolate."""
    low, high, count = min(values), max(values), len(values) - 1
    if count < 1 or not all(isinstance(value, int) for value in values):
        return None
    return IntDistribution(low, high, step=(high - low) // count)
