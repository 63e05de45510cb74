"""The files of conf/: every option is whole, explained and valid, experiments as published."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import option_files
import pytest
from omegaconf import OmegaConf

from eqprop.config.compose import check, compose, validate_composed
from eqprop.config.folder import conf_dir
from eqprop.run import hardware
from eqprop.run.errors import ConfigError

FILES = sorted(conf_dir().rglob("*.yaml"))


def group_of(path: Path) -> str:
    return path.parent.relative_to(conf_dir()).as_posix()


OPTIONS = [(group_of(path), path.stem) for path in FILES if path.parent != conf_dir()]
COMMAND = re.compile(r"# python scripts/train\.py(?: (.*))?$")
VALUE = re.compile(r"\s*(?:- )?[\w()]+: *\S")


def name_of(path: Path) -> str:
    return path.relative_to(conf_dir()).as_posix()


@pytest.fixture
def _two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "gpu_count", lambda: 2)


def command_of(path: Path) -> list[str]:
    """The arguments in the file's first comment; Hydra wants its own header before it."""
    lines = [x for x in path.read_text(encoding="utf-8").splitlines() if "@package" not in x]
    match = COMMAND.match(lines[0])
    assert match, f"{path} does not start with the command that uses it"
    return shlex.split((match[1] or "").partition(" (")[0].strip())


def test_the_groups_are_the_design_s() -> None:
    options: dict[str, set[str]] = {}
    for group, option in OPTIONS:
        options.setdefault(group, set()).add(option)
    expected = {
        "model": {"gaussian", "hopfield"},
        "cost": {"mse", "cross_entropy"},
        "optimizer": {"adam", "adamw", "sgd", "adagrad"},
        "scheduler": {"constant", "cosine", "exponential", "step", "warmup_cosine"},
        "device": {"auto", "cpu", "cuda"},
        "dataset": {
            *("mnist5k", "mnist", "fashion_mnist", "kmnist", "digits"),
            *("svhn", "cifar10", "cifar100"),
        },
        "dynamics": {"euler", "euler_50"},
        "estimator": {"ep", "ep_centered"},
        "noise": {"none", "state", "weights", "gradient", "quantised", "mismatch"},
        "ablation": {"none", "frozen_lower"},
        "trainer": {"default"},
        "tracking": {"wandb_offline", "wandb_online", "none"},
        "paths": {"default"},
        "experiment": {"gaussian_mnist", "hopfield_mnist"},
        "sweep": {"grid", "lr_beta", "tpe"},
    }
    for group, names in expected.items():
        assert names <= options[group]


# An option that works only beside others, and those.
COMPANIONS = {("dynamics", "exact"): ["model=hopfield", "model.activation=hard_sigmoid"]}


@pytest.mark.program
@pytest.mark.usefixtures("_two_gpus")
@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda part: str(part))
def test_every_option_composes_and_validates(group: str, option: str) -> None:
    validate_composed(compose([*COMPANIONS.get((group, option), []), f"{group}={option}"]))


def test_exact_says_what_it_needs() -> None:
    needs = {
        "model.activation": ["model=hopfield"],
        "cost=mse": ["model=hopfield", "model.activation=relu", "cost=cross_entropy"],
        "choose newton": [],
    }
    for needed, overrides in needs.items():
        with pytest.raises(ConfigError, match=needed):
            validate_composed(compose([*overrides, "dynamics=exact"]))


@pytest.mark.program
@pytest.mark.usefixtures("_two_gpus")
@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_it_starts_with_a_command_that_works(path: Path) -> None:
    arguments = command_of(path)
    check(arguments)
    if path.parent != conf_dir():
        assert f"{group_of(path)}={path.stem}" in arguments or path.stem == "default"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_key_has_a_comment(path: Path) -> None:
    block_indent = None
    for line in path.read_text(encoding="utf-8").splitlines():
        indent = len(line) - len(line.lstrip())
        if block_indent is not None and (not line.strip() or indent > block_indent):
            continue
        block_indent = indent if re.search(r": \|", line) else None
        if VALUE.match(line) and not line.lstrip().startswith("#"):
            assert " # " in line, f"no comment: {line}"


class TestOptionFiles:
    """Each key of a component is a parameter of its constructor, and explained as it is there."""

    @pytest.mark.parametrize("path", option_files.FILES, ids=name_of)
    def test_its_keys_are_the_constructor_s(self, path: Path) -> None:
        for kind, given in option_files.parts(path):
            assert set(given) <= set(option_files.keys(kind))
            layers = {"hidden": [1]} if path.parent.name == "model" else {}  # of group network
            kind.model_validate({**layers, **given})

    @pytest.mark.parametrize("path", option_files.FILES, ids=name_of)
    def test_its_comments_are_the_constructor_s(self, path: Path) -> None:
        assert path.read_text() == option_files.rendered(path), option_files.__file__

    @pytest.mark.parametrize("path", option_files.FILES, ids=name_of)
    def test_every_key_of_ours_has_a_description(self, path: Path) -> None:
        for kind, given in option_files.parts(path):
            comments = option_files.keys(kind)
            undescribed = [key for key in given if ": " not in comments[key]]
            assert undescribed in ([], ["_target_"])


def test_the_default_run() -> None:
    cfg = compose()
    assert cfg.seed == 2019
    assert cfg.name is None
    assert cfg.model._target_ == "eqprop.network.Gaussian"
    assert cfg.dataset._target_ == "eqprop.data.MNIST5k"
    assert cfg.dataset.validation == 0.05
    assert cfg.trainer.epochs == 20
    assert cfg.tracking.trackers.wandb.mode is None  # as WANDB_MODE says, offline without it


TABLE: dict[str, dict[str, Any]] = {
    "gaussian_mnist": {
        "model._target_": "eqprop.network.Gaussian",
        "cost._target_": "eqprop.CrossEntropy",
        "dynamics.n_relax": 20,
        "dynamics.init": "feedforward",
        "trainer.epochs": 50,
    },
    "hopfield_mnist": {
        "model._target_": "eqprop.network.Hopfield",
        "cost._target_": "eqprop.SquaredError",
        "dynamics.n_relax": 50,
        "dynamics.init": "normal",
        "trainer.epochs": 100,
    },
}
SHARED: dict[str, Any] = {
    "model.hidden": [1000],
    "model.activation": "sigmoid",
    "estimator._target_": "eqprop.estimator.EquilibriumPropagation",
    "estimator.beta": 1.0,
    "dynamics._target_": "eqprop.relaxation.Euler",
    "dynamics.dt": 0.1,
    "dynamics.tau": 1.0,
    "dynamics.n_nudged": None,
    "dynamics.tol": 0.0,
    "optimizer._target_": "torch.optim.Adam",
    "optimizer.lr": 1e-3,
    "optimizer.betas": [0.9, 0.999],
    "optimizer.eps": 1e-8,
    "optimizer.weight_decay": 0.0,
    "dataset._target_": "eqprop.data.MNIST",
    "dataset.batch_size": 100,
    "dataset.validation": 0.0,
    "dataset.limit": None,
    "dataset.normalize": [0.1307, 0.3081],
    "trainer.eval_every": 1,
    "seed": 2019,
}


@pytest.mark.parametrize("experiment", TABLE)
def test_an_experiment_is_the_published_one(experiment: str) -> None:
    cfg = compose([f"experiment={experiment}"])
    for key, value in {**SHARED, **TABLE[experiment]}.items():
        found = OmegaConf.select(cfg, key)
        assert (OmegaConf.to_container(found) if OmegaConf.is_list(found) else found) == value, key


def test_an_experiment_changes_what_config_yaml_sets(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nseed: 7\ntracking:\n  project: mine\n"
    )
    cfg = compose([f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"])
    assert (cfg.seed, cfg.tracking.project) == (7, "mine")


class TestHopfieldBringsWhatItNeeds:
    @pytest.mark.parametrize(
        ("overrides", "cost", "solver", "n_relax"),
        [
            (["model=hopfield"], "eqprop.SquaredError", "recommended_solver", None),
            (
                ["model=hopfield", "cost=cross_entropy"],
                "eqprop.CrossEntropy",
                "recommended_solver",
                None,
            ),
            (["dynamics=euler", "model=hopfield"], "eqprop.SquaredError", "Euler", None),
            (["model=gaussian"], "eqprop.CrossEntropy", "recommended_solver", None),
            (["experiment=gaussian_mnist", "model=hopfield"], "eqprop.CrossEntropy", "Euler", 20),
            (
                ["experiment=hopfield_mnist", "cost=cross_entropy"],
                "eqprop.CrossEntropy",
                "Euler",
                50,
            ),
        ],
        ids=str,
    )
    def test_unless_told_otherwise(
        self, overrides: list[str], cost: str, solver: str, n_relax: int
    ) -> None:
        cfg = compose(overrides)
        assert cfg.cost._target_ == cost
        assert cfg.dynamics._target_ == f"eqprop.relaxation.{solver}"
        assert cfg.dynamics.n_relax == n_relax


def test_another_optimizer_fits_an_experiment() -> None:
    validate_composed(compose(["experiment=gaussian_mnist", "optimizer=sgd"]))
