"""Keys that change nothing in the command that they are typed in are named, others are not."""

from __future__ import annotations

import pytest
from hydra.types import RunMode

from eqprop.config.compose import Composer
from eqprop.config.effect import without_effect


def named(*words: str, multirun: bool = False) -> list[str]:
    """The keys of the overrides that are said to have no effect."""
    mode = RunMode.MULTIRUN if multirun else RunMode.RUN
    cfg = Composer().load(words, mode)
    return [line.partition("=")[0] for line in without_effect(cfg, words, multirun)]


@pytest.mark.parametrize(
    ("word", "others"),
    [
        ("sweep.jobs=2", []),
        ("sweep.job_timeout=5", []),
        ("sweep.n_trials=5", []),
        ("hydra.sweep.dir=x", []),
        ("hydra/launcher=basic", []),
        ("tracking.project=x", ["tracking=none"]),
        ("device.index=1", ["device=cpu"]),
        ("dataset.download=true", ["dataset=digits"]),
        ("optimizer.dampening=0.5", ["optimizer=sgd"]),
        ("network=mlp", ["model.hidden=[10]"]),
    ],
)
def test_on_a_single_run(word: str, others: list[str]) -> None:
    assert named(word, *others) == [word.partition("=")[0]]


@pytest.mark.parametrize("word", ["sweep.max_failures=5", "sweep.seed=1", "hydra.run.dir=x"])
def test_on_a_grid(word: str) -> None:
    assert named(word, "seed=1,2", multirun=True) == [word.partition("=")[0]]


def test_what_has_an_effect_is_not_named() -> None:
    assert named("seed=1", "optimizer.lr=1", "tracking.project=x", "hydra.run.dir=x") == []
    assert named("optimizer=sgd", "optimizer.momentum=0.5", "optimizer.dampening=0.1") == []
    assert named("network=lenet", "dataset=mnist", "dataset.download=true") == []
    search = ["sweep=tpe", "sweep.n_trials=5", "sweep.seed=1", "sweep.jobs=2", "hydra.sweep.dir=x"]
    assert named(*search, multirun=True) == []
    assert named("seed=1,2,3", "sweep.n_trials=2", multirun=True) == []  # the first two


def test_a_job_of_a_sweep_is_not_told(tmp_path: object) -> None:
    assert named("sweep.jobs=2", "hydra.job.num=3", "hydra.job.id=3") == []
