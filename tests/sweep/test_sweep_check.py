"""The jobs of a multirun are composed and validated before any of them starts."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hydra.types import RunMode
from searching import planned

from eqprop.config.compose import Composer
from eqprop.run.errors import ConfigError
from eqprop.sweep import plan


def checked(command: str, config_dir: Path | None = None) -> None:
    """Do what a multirun does before its first job."""
    composer = Composer(config_dir=None if config_dir is None else str(config_dir))
    plan.check(plan.read(composer, composer.load(shlex.split(command), RunMode.MULTIRUN)))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("optimizer.lr=abc,def", "optimizer.lr='abc'|in the job optimizer.lr=abc"),
        ("optimizer=adam,sgd,adma", "optimizer=adma|did you mean adam?"),
        ("seed=range(0,100) optimizer=adam,sgd,adma", "optimizer=adma"),
        ("seed=range(-3,0)", "seed=-3"),
        ("sweep=tpe optimizer.lr=interval(-1,1)", "optimizer.lr=-1"),
        ("dynamcis.dt=1,2", "dynamcis.dt=1|did you mean dynamics.dt?"),
        ("optimiser=adam,sgd", "did you mean optimizer?"),
        ("hydra.job.name=a,b", "hydra.job.name=a,b"),
        ("optimizer.lr=-1", "optimizer.lr=-1"),
    ],
)
def test_refused(command: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        checked(command)
    assert "\n" not in str(refused.value)
    for word in words.split("|"):
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("optimizer.lr=1,2,abc", "optimizer.lr='abc'|in the job optimizer.lr=abc"),
        (
            "model=gaussian,hopfield dynamics.init=normal,feedforward",
            "dynamics.init='feedforward'|in the job model=hopfield dynamics.init=feedforward",
        ),
    ],
)
def test_some_wrong_cells_do_not_keep_the_others(
    command: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checked(command)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    for word in words.split("|"):
        assert word in line


def test_the_parameters_of_an_option_count(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nhydra:\n  sweeper:\n    params:\n      seed: -4,-5\n"
    )
    with pytest.raises(ConfigError, match="seed=-4"):
        checked("experiment=mine", tmp_path)


def test_all_jobs_in_the_order_of_hydra_s_own_sweeper(tmp_path: Path) -> None:
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    words = ["seed=1,2,3", "model=gaussian,hopfield", "+mine=x", "~debug"]
    asked = planned(tmp_path, *words)
    overrides = Composer().parse(words[:3])
    ours = [asked.words(params) for params in asked.sample()]
    assert [cell[:3] for cell in ours] == BasicSweeper.split_arguments(overrides, None)[0]
    assert all(cell[3:] == ["~debug", "tracking=none"] for cell in ours)


def test_of_many_jobs_every_value_is_in_one(tmp_path: Path) -> None:
    words = ("seed=range(0,40)", "model=gaussian,hopfield", "trainer.epochs=range(1,31)")
    cells = planned(tmp_path, *words).sample()
    assert len(cells) == 64
    for axis, count in (("seed", 40), ("model", 2), ("trainer.epochs", 30)):
        assert len({cell[axis] for cell in cells}) == count
