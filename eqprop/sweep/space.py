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
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from eqprop.run.errors import ConfigError
from eqprop.run.text import hint, key_of, show

Parse = Callable[[Sequence[str]], list[Override]]
"""Reads overrides by Hydra's grammar."""

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution


@dataclass(frozen=True)
class Axis:
    """One key that varies."""

    key: str  # with Hydra's ``+`` and ``@package``, where they were given
    text: str  # what was written behind the ``=``
    values: Mapping[Any, str]  # each with its text in an override; empty for an interval
    distribution: Distribution  # what Optuna draws from; every listed value is a category

    @property
    def name(self) -> str:
        """The key without signs."""
        return self.key.lstrip("+~")

    @property
    def samples(self) -> list[Any]:
        """The listed values, or the two ends of an interval."""
        if isinstance(self.distribution, CategoricalDistribution):
            return list(self.values)
        return [self.distribution.low, self.distribution.high]

    def word(self, value: Any) -> str:
        """Return the override that gives the axis this value."""
        return f"{self.key}={self.values.get(value, repr(value))}"


def read_axis(parse: Parse, override: Override) -> Axis:
    """Return the axis that an override with several values spans."""
    key = override.get_key_element()
    text = str(override.input_line).partition("=")[2]
    sweep = cast("Any", override.value())
    tags: set[str] = set(getattr(sweep, "tags", ()))
    for tag in sorted(tags - {"log"}):
        raise ConfigError(f"{key}={text}: no tag is called {show(tag)}{hint(tag, ['log'])}")
    if not override.is_discrete_sweep():
        return Axis(key, text, {}, _interval(f"{key}={text}", sweep.start, sweep.end, bool(tags)))
    if tags:
        raise ConfigError(f"{key}={text}: the tag log goes with interval(), not with a list")
    values: dict[Any, str] = {}
    for one in override.sweep_string_iterator():
        values.setdefault(_value(parse, f"{key_of(key)}={one}", one), one)
    if not values:
        raise ConfigError(f"{key}={text}: there is no value in it")
    return Axis(key, text, values, CategoricalDistribution(list(values)))


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
    whole = isinstance(low, int) and isinstance(high, int)
    return IntDistribution(low, high, log) if whole else FloatDistribution(low, high, log)
