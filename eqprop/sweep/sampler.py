"""Proposes points of a space that nobody has tried; needs Optuna.

What is proposed depends on the seed, on the trial's number and on the trials before, not on the
process: a search that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from typing import Any, Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from eqprop.sweep.space import Axis, Space

Params = dict[str, Any]
_TRIES = 100


class UntriedSampler(BaseSampler):
    """Tree-structured Parzen estimator, or chance, over a space that is known beforehand.

    Args:
        space: by the names of its axes.
        kind: what proposes.
        seed: of all that is drawn.
    """

    def __init__(
        self, space: dict[str, BaseDistribution], kind: Literal["tpe", "random"], seed: int
    ) -> None:
        self.space = space
        self.kind = kind
        self.seed = seed

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self.space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Params:
        seed = _mixed(self.seed, trial.number)
        chance = RandomSampler(seed)
        inner = TPESampler(seed=seed) if self.kind == "tpe" else chance
        others = study.get_trials(deepcopy=False)
        tried = {_key(other.params) for other in others if other.number != trial.number}
        for _ in range(_TRIES):
            params = inner.sample_relative(study, trial, search_space) or {
                name: chance.sample_independent(study, trial, name, distribution)
                for name, distribution in search_space.items()
            }
            if _key(params) not in tried:
                return params
        left = [p for p in _all(search_space) if _key(p) not in tried]
        return random.Random(seed).choice(left) if left else params

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        raise AssertionError(f"{param_name} is not of the space")


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The axes of a space as Optuna's distributions; names are categories."""
    return {axis.name: _distribution(axis) for axis in space.axes}


def size(space: dict[str, BaseDistribution]) -> float:
    """How many points there are; infinity where an axis has all numbers between two."""
    sizes = [_count(distribution) for distribution in space.values()]
    return math.prod(sizes)


def _distribution(axis: Axis) -> BaseDistribution:
    interval = axis.interval
    if interval is None:
        return CategoricalDistribution(axis.values)
    if interval.whole:
        step = int(interval.step or 1)
        return IntDistribution(int(interval.low), int(interval.high), interval.log, step)
    return FloatDistribution(interval.low, interval.high, interval.log, interval.step)


def _count(distribution: BaseDistribution) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return (distribution.high - distribution.low) // distribution.step + 1
    assert isinstance(distribution, FloatDistribution)
    if distribution.step is None:
        return math.inf
    return round((distribution.high - distribution.low) / distribution.step) + 1


def _values(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    assert isinstance(distribution, FloatDistribution)
    count = int(_count(distribution))
    return [distribution.low + k * (distribution.step or 0.0) for k in range(count)]


def _all(space: dict[str, BaseDistribution]) -> list[Params]:
    if size(space) == math.inf:
        return []
    lists = [_values(distribution) for distribution in space.values()]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*lists)]


def _key(params: Params) -> str:
    rounded = {k: float(f"{v:.12g}") if isinstance(v, float) else v for k, v in params.items()}
    return repr(sorted(rounded.items()))


def _mixed(seed: int, number: int) -> int:
    digest = hashlib.sha256(f"{seed} {number}".encode()).digest()
    return int.from_bytes(digest[:4], "little")
