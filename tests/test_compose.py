"""Composing in advance: every mistake on the command line is one line, before anything begins."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from eqprop.config.compose import check, compose, conf_dir, validate_composed
from eqprop.config.multirun import expand
from eqprop.run.errors import ConfigError
from eqprop.sweep import space


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
        "hydra.mode=MULTIRUN seed=1,2",
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


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("dynamcis.dt=0.1", "dynamcis.dt=0.1|unknown key|did you mean dynamics.dt?"),
        ("dt=0.1", "dt=0.1|did you mean dynamics.dt?"),
        ("+dynamcis.dt=0.1", "dynamcis.dt=0.1|did you mean dynamics.dt?"),
        ("+new.key=1", "new.key=1|unknown key|there are: checkpoint, cost"),
        ("optimizer.learning_rate=1", "optimizer.learning_rate=1|optimizer.lr"),
        ("optimizer=sgd optimizer.betas=[0,0]", "optimizer.betas=[0,0]|optimizer.momentum"),
        ("optimizer=adma", "optimizer=adma|did you mean adam?|adagrad, adam, sgd"),
        ("optimizer=../../etc/passwd", "optimizer=../../etc/passwd|no such option"),
        ("optimiser=adam", "optimiser=adam|did you mean optimizer?"),
        ("optimizer=5", "optimizer=5|adagrad, adam, sgd"),
        ("optimizer=null", "optimizer=null|adagrad, adam, sgd"),
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
        ("model.hidden=[]", "model.hidden=[]|at least one"),
        ("estimator.beta=0", "estimator.beta=0|other than 0"),
        ("dataset.batch_size=0", "dataset.batch_size=0|>= 1"),
        (f"seed={2**70}", f"seed={2**70}|2^63"),
        ("model=hopfield dynamics.init=feedforward", "dynamics.init='feedforward'|normal"),
        ("~optimizer.lr", "missing key 'optimizer.lr'|> 0"),
        ("~optimizer", "missing key 'optimizer'"),
        ("~optimzer", "~optimzer|did you mean optimizer?"),
        ("~optimizer.lrr", "~optimizer.lrr|did you mean optimizer.lr?"),
        ("hydra.foo=1", "hydra.foo=1|hydra.mode"),
        ("hydra.run.dir=${nope}", "hydra.run.dir=|does not exist"),
        ("hydra.searchpath=[file:///nowhere]", "hydra.searchpath|/nowhere"),
        ("hydra.searchpath=3", "hydra.searchpath|list"),
        ("--config-dir=/nowhere", "--config-dir|/nowhere"),
        ("--config-path=some/where", "--config-path=some/where|absolute"),
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
    (tmp_path / "mine_for_compose.py").write_text("class E:\n    def __init__(self, **k): pass\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text(
        "_target_: mine_for_compose.E\nhidden: [3]\nactivation: tanh\nanything: 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    check([f"hydra.searchpath=[file://{tmp_path}]", "model=mine"])
    check([f"--config-dir={tmp_path}", "model=mine"])
    check(["-m", f"hydra.searchpath=[file://{tmp_path}]", "model=mine,gaussian"])


class TestMultirun:
    @pytest.mark.parametrize(
        ("command", "words"),
        [
            ("-m optimizer.lr=abc,def", "optimizer.lr='abc'|in the job optimizer.lr=abc"),
            ("-m optimizer=adam,sgd,adma", "optimizer=adma|did you mean adam?"),
            ("-m seed=range(0,100) optimizer=adam,sgd,adma", "optimizer=adma"),
            ("-m seed=range(-3,0)", "seed=-3"),
            ("-m sweep=tpe optimizer.lr=interval(-1,1)", "optimizer.lr=-1"),
            ("-m dynamcis.dt=1,2", "dynamcis.dt=1|did you mean dynamics.dt?"),
            ("-m optimiser=adam,sgd", "did you mean optimizer?"),
            ("-m hydra.job.name=a,b", "hydra.job.name=a,b"),
            ("hydra.mode=MULTIRUN seed=-1,-2", "seed=-1"),
            ("-m optimizer.lr=-1", "optimizer.lr=-1"),
        ],
    )
    def test_refused(self, command: str, words: str) -> None:
        text = refusal(command)
        for word in words.split("|"):
            assert word in text

    @pytest.mark.parametrize(
        ("command", "words"),
        [
            ("-m optimizer.lr=1,2,abc", "optimizer.lr='abc'|in the job optimizer.lr=abc"),
            (
                "-m model=gaussian,hopfield dynamics.init=normal,feedforward",
                "dynamics.init='feedforward'|in the job model=hopfield dynamics.init=feedforward",
            ),
        ],
    )
    def test_some_wrong_cells_do_not_keep_the_others(
        self, command: str, words: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        check(shlex.split(command))
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("warning: ")
        for word in words.split("|"):
            assert word in line

    def test_the_sweeper_s_own_parameters_count(self, tmp_path: Path) -> None:
        (tmp_path / "experiment").mkdir()
        (tmp_path / "experiment" / "mine.yaml").write_text(
            "# @package _global_\nhydra:\n  sweeper:\n    params:\n      seed: -4,-5\n"
        )
        assert "seed=-4" in refusal(f"-m --config-dir={tmp_path} experiment=mine")

    @staticmethod
    def cells(*lines: str, most: int = 64) -> list[list[str]]:
        return expand(space.read(OverridesParser.create().parse_overrides(list(lines))), most)

    def test_all_jobs_in_the_sweeper_s_order(self) -> None:
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        lines = ["a=1,2,3", "b=range(0,2)", "+c=x", "~d"]
        overrides = OverridesParser.create().parse_overrides(lines[:3])
        assert self.cells(*lines[:3]) == BasicSweeper.split_arguments(overrides, None)[0]
        assert self.cells("~d", "a=1,2") == [["~d", "a=1"], ["~d", "a=2"]]

    def test_of_many_jobs_every_value_is_in_one(self) -> None:
        cells = self.cells("a=range(0,40)", "b=1,2,3", "c=range(0,30)")
        assert len(cells) == 64
        assert len({cell[0] for cell in cells}) == 40
        assert len({cell[1] for cell in cells}) == 3
        assert len({cell[2] for cell in cells}) == 30


def test_validate_composed_leaves_hydra_s_part_out() -> None:
    assert validate_composed(compose(["seed=5"])).seed == 5
    plain = OmegaConf.to_container(compose())
    assert isinstance(plain, dict)
    validate_composed(OmegaConf.create({**plain, "hydra": {"anything": "${not.there}"}}))


def test_conf_dir_prefers_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import eqprop.config.composer as composer

    assert (conf_dir() / "config.yaml").is_file()
    package = tmp_path / "eqprop"
    package.mkdir()
    monkeypatch.setattr(composer, "__file__", str(package / "composer.py"))
    assert conf_dir() == package / "conf"
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").touch()
    assert conf_dir() == tmp_path / "conf"
