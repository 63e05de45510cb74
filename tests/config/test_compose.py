"""Composing in advance: every mistake on the command line is one line, before anything begins."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from eqprop.config.compose import check, compose, conf_dir, validate_composed
from eqprop.run.errors import ConfigError


def refusal(command: str | list[str]) -> str:
    arguments = shlex.split(command) if isinstance(command, str) else command
    with pytest.raises(ConfigError) as caught:
        check(arguments)
    text = str(caught.value)
    assert "\n" not in text
    assert "use +" not in text, "Hydra's advice misleads"
    assert len(text) < 500
    return text


@pytest.mark.parametrize(
    "command",
    [
        "",
        "model=hopfield optimizer.lr=1",
        "optimizer.lr=${dynamics.tau}",
        "paths.outputs=${hydra:runtime.cwd}/out",
        "notes_are_free=1 --help",
        "-m model=gaussian,hopfield optimizer.lr=1e-3,3e-3",
        "-m seed=range(0,3) model=glob(*)",
        "+optimizer.fused=false",
        "~tracking.trackers.wandb",
        "--cfg job",
        "--cfg job optimizer.lr=abc",
        "--info",
        "--help",
        "--hydra-help optimizer=adma",
        "--shell-completion install=bash",
    ],
)
def test_accepted(command: str) -> None:
    if command.startswith("notes_are_free"):
        assert "unknown key" in refusal(command), "help, too, is composed"
        return
    check(shlex.split(command))
    assert not GlobalHydra.instance().is_initialized()
    assert HydraConfig.instance().cfg is None


@pytest.mark.program
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("dynamcis.dt=0.1", "dynamcis.dt=0.1|unknown key|did you mean dynamics.dt?"),
        ("dt=0.1", "dt=0.1|did you mean dynamics.dt?"),
        ("+dynamcis.dt=0.1", "dynamcis.dt=0.1|did you mean dynamics.dt?"),
        ("+new.key=1", "new.key=1|unknown key|there are: ablation, callbacks, checkpoint, cost"),
        ("optimizer.learning_rate=1", "optimizer.learning_rate=1|optimizer.lr"),
        ("optimizer=sgd optimizer.betas=[0,0]", "optimizer.betas=[0,0]|optimizer.momentum"),
        ("optimizer=adma", "optimizer=adma|did you mean adam?|adagrad, adam, adamw, sgd"),
        ("noise=gauss", "noise=gauss|there are: gradient, mismatch, none, quantised, state"),
        ("noise=state noise.bits=2", "noise.bits=2|there are: noise._target_, noise.at"),
        ("noise=state noise.strength=-1", "noise.strength=-1: must be a number >= 0"),
        ("noise=quantised noise.bits=0", "noise.bits=0: must be a whole number >= 1"),
        ("noise=state estimator=backprop", "noise=state: Backprop relaxes no|noise=weights"),
        ("noise=mismatch estimator=backprop", "noise=mismatch: Backprop relaxes no"),
        ("noise=quantised noise.of=state estimator=backprop", "noise.of=state: Backprop"),
        ("noise=state noise.at=step dynamics=euler dynamics.adaptive=true", "noise.at=step: dyn"),
        ("ablation=frozen", "ablation=frozen|did you mean frozen_lower?"),
        ("optimizer=../../etc/passwd", "optimizer=../../etc/passwd|no such option"),
        ("optimiser=adam", "optimiser=adam|did you mean optimizer?"),
        ("optimizer=5", "optimizer=5|adagrad, adam, adamw, sgd"),
        ("optimizer=null", "optimizer=null|adagrad, adam, adamw, sgd"),
        ("+optimizer=adam", "optimizer|chosen twice"),
        ("optimizer.lr", "optimizer.lr|missing '='"),
        ("optimizer.lr=[1,", "optimizer.lr=[1,|cannot be read"),
        ("name=\x1b[31m", "name=\\x1b[31m|cannot be read"),
        ("optimizer.lr=", "optimizer.lr=''|number > 0"),
        ("optimizer.lr=abc", "optimizer.lr='abc'|number > 0"),
        ("optimizer.lr=null", "optimizer.lr=null|number > 0"),
        ("optimizer.lr=1e400", "optimizer.lr=inf|finite"),
        ("optimizer.lr.foo=1", "optimizer.lr.foo=1|did you mean optimizer.lr?"),
        ("optimizer.lr=1,2", "optimizer.lr=1,2|add -m"),
        ("optimizer.lr=???", "optimizer.lr=???|must be given"),
        ("optimizer.lr=${foo.bar}", "optimizer.lr='${foo.bar}'|does not exist"),
        ("optimizer.lr=${dynamics.dtt}", "optimizer.lr=|did you mean dynamics.dt?"),
        ("optimizer.lr=${no_such:1}", "optimizer.lr=|no_such"),
        ("optimizer.lr=${optimizer.lr}", "optimizer.lr=|ecursive"),
        ("dynamics.dt=-1", "dynamics.dt=-1|> 0"),
        ("dynamics.dt=nan", "dynamics.dt=nan|finite"),
        ("model.hidden=[]", "model.hidden=[]|at least 1"),
        ("estimator.beta=0", "estimator.beta=0|other than zero"),
        ("dataset.batch_size=0", "dataset.batch_size=0|>= 1"),
        ("dataset.pad=-1", "dataset.pad=-1|>= 0"),
        ("dataset.normalize=[[0.1,0.2],[0.3,0]]", "dataset.normalize=[[0.1, 0.2], [0.3, 0]]|> 0"),
        ("dataset.augment.crop=-1", "dataset.augment.crop=-1|>= 0"),
        ("dataset.augment.mode=reflect", "dataset.augment.mode='reflect'|edge or zeros"),
        ("dataset.augment.flop=true", "dataset.augment.flop|did you mean dataset.augment.flip?"),
        ("'dataset.augment={crp: 4}'", "augment.crp=4|did you mean dataset.augment.crop?"),
        ("dataset.augment._target_=eqprop.data.CropFlp", "did you mean eqprop.data.CropFlip?"),
        (f"seed={2**70}", f"seed={2**70}|2^63"),
        ("model=hopfield dynamics.init=feedforward", "dynamics.init='feedforward'|normal"),
        ("~dataset.batch_size", "missing key 'dataset.batch_size'|>= 1"),
        ("~optimizer", "missing key 'optimizer'"),
        ("~optimzer", "~optimzer|did you mean optimizer?"),
        ("~optimizer.lrr", "~optimizer.lrr|did you mean optimizer.lr?"),
        ("hydra.foo=1", "hydra.foo=1|hydra.mode"),
        ("hydra.run.dir=${nope}", "hydra.run.dir=|does not exist"),
        ("hydra.searchpath=3", "hydra.searchpath|list"),
        ("--config-dir=/nowhere", "--config-dir|/nowhere"),
        ("--config-path=/nowhere", "/nowhere"),
        ("--config-name=nothing", "'nothing'"),
        ("--cfg job -m", "--multirun and --cfg"),
        ("--resolve", "--cfg"),
        ("--help optimizer=adma", "optimizer=adma|did you mean adam?"),
        ("+" + "y" * 300 + "=1", "y" * 50),
        ("name=" + "x" * 300 + "[", "name=xxx|cannot be read"),
    ],
)
def test_refused_in_one_line(command: str, words: str) -> None:
    text = refusal(command)
    for word in words.split("|"):
        assert word in text


def test_no_hint_of_hydra_s_own() -> None:
    assert "+dynamcis" not in refusal("dynamcis.dt=0.1")


def test_a_name_of_any_kind_is_accepted() -> None:
    check(["name='../../etc [bold]x[/bold] é'"])


def test_broken_yaml_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("a: [1,\nb: }")
    text = refusal(f"--config-dir={tmp_path} model=mine")
    assert "mine.yaml" in text
    assert "line" in text


def test_a_search_path_brings_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_for_compose.py").write_text(
        "from eqprop.network import LocalEnergy\n"
        "class E(LocalEnergy):\n    def __init__(self, **k): pass\n"
    )
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text(
        "_target_: mine_for_compose.E\nhidden: [3]\nactivation: tanh\nanything: 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    check([f"hydra.searchpath=[file://{tmp_path}]", "model=mine"])
    check([f"--config-dir={tmp_path}", "model=mine"])
    check(["-m", f"hydra.searchpath=[file://{tmp_path}]", "model=mine,gaussian"])


def test_validate_composed_leaves_hydra_s_part_out() -> None:
    assert validate_composed(compose(["seed=5"])).seed == 5
    plain = OmegaConf.to_container(compose())
    assert isinstance(plain, dict)
    validate_composed(OmegaConf.create({**plain, "hydra": {"anything": "${not.there}"}}))


def test_conf_dir_prefers_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import eqprop.config.folder as module

    assert (conf_dir() / "config.yaml").is_file()
    package = tmp_path / "eqprop"
    (package / "config").mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(package / "config" / "folder.py"))
    assert conf_dir() == package / "conf"
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").touch()
    assert conf_dir() == tmp_path / "conf"


def test_private_parts_of_hydra_lie_in_one_file() -> None:
    root = conf_dir().parent
    private = re.compile(
        r"hydra\._internal|omegaconf\._|from hydra import _|from omegaconf import _"
    )
    files = [*root.glob("eqprop/**/*.py"), *root.glob("scripts/**/*.py")]
    found = [path.name for path in files if private.search(path.read_text())]
    assert found == ["hydra_internals.py"]


class TestKeysOfAFormerOption:
    """An experiment sets keys of its estimator; another estimator is typed behind it."""

    def test_they_are_left_out(self) -> None:
        cfg = compose(["experiment=gaussian_mnist", "estimator=backprop", "optimizer=adagrad"])
        assert dict(cfg.estimator) == {"_target_": "eqprop.estimator.Backprop"}
        assert "betas" not in cfg.optimizer

    def test_a_class_named_by_itself_drops_them_too(self) -> None:
        cfg = compose(["estimator._target_=eqprop.estimator.Backprop"])
        assert "beta" not in cfg.estimator

    def test_a_key_that_is_typed_stays_and_is_refused(self) -> None:
        cfg = compose(["estimator=backprop", "+estimator.beta=3"])
        with pytest.raises(ConfigError, match=r"estimator\.beta"):
            validate_composed(cfg)

    def test_nothing_is_left_out_where_no_option_is_typed(self) -> None:
        assert compose(["experiment=gaussian_mnist"]).estimator.beta == 1.0

    def test_none_takes_the_whole_part_out(self, tmp_path: Path) -> None:
        """An experiment's noise, for a control without it."""
        (tmp_path / "experiment").mkdir()
        head = "# @package _global_\ndefaults:\n  - override /noise: state\n  - _self_\n"
        text = f"{head}noise:\n  strength: 0.2\n"
        (tmp_path / "experiment" / "mine.yaml").write_text(text)
        mine = [f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"]
        assert validate_composed(compose(mine)).noise.options()["strength"] == 0.2
        for option, left in {"none": None, "weights": "eqprop.training.noise.WeightNoise"}.items():
            config = validate_composed(compose([*mine, f"noise={option}"]))
            assert (config.noise and config.noise.target) == left
