"""A class put in the place of an option's: the option's other keys do not get in its way."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

import eqprop
from eqprop.config.compose import Composer, drop_left_over_keys
from eqprop.config.validation import validate_composed
from eqprop.relaxation import Euler
from eqprop.run.errors import ConfigError


class OwnSolver(Euler):
    def __init__(self, dt: float = 0.1, n_relax: int = 5) -> None:
        super().__init__(dt=dt, n_relax=n_relax)


class OwnModel(eqprop.ConditionalGaussian):
    def __init__(self, dimensions, c_energy, batch_size, phi, price: float = 0.1) -> None:
        super().__init__(dimensions, c_energy, batch_size, phi)


@pytest.fixture(autouse=True)
def _mine(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("mine")
    module.OwnSolver, module.OwnModel = OwnSolver, OwnModel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", module)


@pytest.mark.parametrize(
    ("words", "dropped"),
    [
        ("dynamics._target_=mine.OwnSolver", "dynamics.tau"),
        ("dynamics=euler dynamics._target_=mine.OwnSolver", "dynamics.tol"),
        ("dynamics=sweep dynamics._target_=mine.OwnSolver", "dynamics.rule"),
        ("optimizer._target_=torch.optim.RMSprop", "optimizer.betas"),
        ("optimizer=sgd optimizer._target_=torch.optim.Adam", "optimizer.nesterov"),
        ("model=hopfield model._target_=mine.OwnModel +model.price=1", ""),
        ("estimator=holomorphic estimator._target_=eqprop.estimator.ContinualEP", "estimator."),
        ("experiment=gaussian_mnist optimizer._target_=torch.optim.RMSprop", "optimizer.amsgrad"),
    ],
)
def test_what_the_new_class_does_not_take_is_left_out(words: str, dropped: str) -> None:
    overrides = words.split()
    composer = Composer()
    cfg = composer.load(overrides)
    validate_composed(cfg)
    again = composer.loader.load_configuration("config", overrides, cfg.hydra.mode)
    lines = drop_left_over_keys(again, overrides, again.hydra.runtime)  # as the run itself says it
    assert len(lines) == bool(dropped)  # one for all of them
    assert dropped in "".join(lines)


@pytest.mark.parametrize(
    "words",
    [
        "dynamics=euler dynamics._target_=mine.OwnSolver dynamics.tol=0.1",
        "optimizer._target_=torch.optim.RMSprop optimizer.amsgrad=true",
        "model._target_=mine.OwnModel +model.prize=1",
    ],
)
def test_what_was_typed_is_refused(words: str) -> None:
    typed = words.split()[-1].lstrip("+")
    with pytest.raises(ConfigError, match=typed.split("=")[0].replace(".", r"\.")):
        validate_composed(Composer().load(words.split()))


@pytest.mark.parametrize(
    ("optimizer", "dropped", "refused"),
    [
        ("_target_: torch.optim.RMSprop", "optimizer.betas", ""),
        ("{_target_: torch.optim.RMSprop, alpha: 0.9}", "optimizer.amsgrad", ""),
        ("{_target_: torch.optim.RMSprop, betas: [0.5, 0.9]}", "", "optimizer.betas"),
    ],
)
def test_an_experiment_puts_a_class_there_itself(
    tmp_path: Path, optimizer: str, dropped: str, refused: str
) -> None:
    (tmp_path / "experiment").mkdir()
    body = optimizer if optimizer.startswith("{") else "{" + optimizer + "}"
    text = f"# @package _global_\ndefaults:\n  - _self_\noptimizer: {body}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    composer = Composer(config_dir=str(tmp_path))
    overrides = ["experiment=mine"]
    if refused:
        with pytest.raises(ConfigError, match=refused.replace(".", r"\.")):
            validate_composed(composer.load(overrides))
        return
    cfg = composer.load(overrides)
    assert "RMSprop" in str(validate_composed(cfg).optimizer.target)
    again = composer.loader.load_configuration("config", overrides, cfg.hydra.mode)
    (line,) = drop_left_over_keys(again, overrides, again.hydra.runtime)
    assert dropped in line
    assert "alpha" not in line


def test_an_option_that_is_typed_wins_over_the_class_of_an_experiment(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndynamics: {_target_: mine.OwnSolver, dt: 0.2}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    composer = Composer(config_dir=str(tmp_path))
    assert composer.load(["experiment=mine"]).dynamics._target_ == "mine.OwnSolver"
    for option in ("newton", "auto"):
        overrides = ["experiment=mine", f"dynamics={option}"]
        cfg = composer.load(overrides)
        plain = composer.load([f"dynamics={option}"])
        assert validate_composed(cfg).dynamics.target == plain.dynamics._target_
        assert cfg.dynamics == {**plain.dynamics, "dt": 0.2}, "keys that fit stay"
        again = composer.loader.load_configuration("config", overrides, cfg.hydra.mode)
        (line,) = drop_left_over_keys(again, overrides, again.hydra.runtime)
        assert line.startswith("dynamics._target_=mine.OwnSolver")
