"""Configuration files as people write them: encodings, paths, experiments that hold a sweep."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf
from running import QUICK, ROOT, train

from eqprop.config.compose import Composer
from eqprop.run.errors import ConfigError
from eqprop.sweep import plan

HEAD = "# @package _global_\n"


def composed(folder: Path, text: str | bytes, *words: str, mode: RunMode = RunMode.RUN):
    """The configuration with an experiment of this content."""
    file = folder / "experiment" / "mine.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Composer(config_dir=str(folder)).load(["experiment=mine", *words], mode)


@pytest.mark.parametrize(
    "data",
    [
        codecs.BOM_UTF8 + f"{HEAD}name: café\n".encode(),
        f"{HEAD}name: café\n".encode("utf-16"),
        codecs.BOM_UTF16_BE + f"{HEAD}name: café\n".encode("utf-16-be"),
        f"{HEAD}name: café\n".replace("\n", "\r\n").encode(),
    ],
)
def test_marks_and_line_ends_do_not_matter(data: bytes, tmp_path: Path) -> None:
    assert composed(tmp_path, data).name == "café"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (f"{HEAD}seed: 5\nname: café\n".encode("latin-1"), "line 3 UTF-8"),
        (f"{HEAD}seed: [5\n".encode(), "line"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(data: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        composed(tmp_path, data)
    for word in ["experiment/mine.yaml", *words.split()]:
        assert word in str(caught.value)


GROUPS = sorted(path.name for path in (ROOT / "conf").iterdir() if path.is_dir())


@pytest.mark.parametrize("group", [g for g in GROUPS if g not in ("experiment", "debug", "hydra")])
def test_an_experiment_chooses_any_option_and_changes_any_key(group: str, tmp_path: Path) -> None:
    (tmp_path / group).mkdir(exist_ok=True)
    part = "model" if group == "network" else group  # which its options write into
    (tmp_path / group / "other.yaml").write_text(f"# @package {part}\nmine: 1\nalso: 2\n")
    text = f"{HEAD}defaults:\n  - override /{group}: other\n  - _self_\n"
    cfg = composed(tmp_path, f"{text}{part}:\n  also: 3\n")
    assert (cfg[part].mine, cfg[part].also) == (1, 3)


def test_the_debug_option_belongs_to_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="debug=limit"):
        composed(tmp_path, f"{HEAD}defaults:\n  - override /debug: limit\n")
    with pytest.raises(ConfigError, match="model"):
        composed(tmp_path, f"{HEAD}defaults:\n  - override /modle: hopfield\n")


SEARCH = f"""{HEAD}
defaults:
  - override /sweep: tpe
  - override /hydra/launcher: basic
  - _self_
sweep:
  n_trials: 3
hydra:
  sweeper:
    params:
      dynamics.n_relax: 2,3
"""


def test_a_search_and_its_space_in_an_experiment(tmp_path: Path) -> None:
    master = composed(tmp_path, SEARCH, "sweep.n_trials=2", mode=RunMode.MULTIRUN)
    assert (master.sweep.sampler, master.sweep.n_trials) == ("tpe", 2)
    import eqprop.sweep.plugin  # noqa: F401 (which names the folder of a search)

    asked = plan.read(Composer(config_dir=str(tmp_path)), master)
    assert {axis.key for axis in asked.axes} == {
        *("optimizer.lr", "estimator.beta", "dynamics.n_relax")
    }
    job = asked.compose(asked.sample()[0])
    assert job.sweep.sampler == "grid"  # a job is one run
    keys = composed(tmp_path, f"{HEAD}sweep:\n  sampler: random\n  n_trials: 4\n")
    assert (keys.sweep.sampler, keys.sweep.n_trials) == ("random", 4)


def test_a_launcher_in_an_experiment(tmp_path: Path) -> None:
    (tmp_path / "hydra" / "launcher").mkdir(parents=True)
    (tmp_path / "hydra" / "launcher" / "own.yaml").write_text("_target_: mine.Launcher\n")
    text = f"{HEAD}defaults:\n  - override /hydra/launcher: own\n"
    master = composed(tmp_path, text, mode=RunMode.MULTIRUN)
    assert master.hydra.launcher._target_ == "mine.Launcher"


def test_paths_in_files_and_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    text = (
        f"{HEAD}paths:\n  data: $SCRATCH/data\n  outputs: ~/runs\n"
        "hydra:\n  run:\n    dir: ${SCRATCH}/${name}\n"
    )
    cfg = composed(tmp_path, text, "name=a")
    assert (cfg.paths.data, cfg.paths.outputs) == ("/scratch/me/data", "/home/me/runs")
    assert OmegaConf.to_container(cfg.hydra.run, resolve=True)["dir"] == "/scratch/me/a"
    cfg = composed(tmp_path, HEAD, "paths.data='~/data'", "paths.outputs=$SCRATCH/b")
    assert (cfg.paths.data, cfg.paths.outputs) == ("/home/me/data", "/scratch/me/b")
    for wrong in ("paths.data=$NOWHERE/a", "paths.data='~no-such-person/a'"):
        with pytest.raises(ConfigError, match=r"paths\.data="):
            composed(tmp_path, HEAD, wrong)
    (tmp_path / "a$b").mkdir()
    cfg = composed(tmp_path, HEAD, f"paths.data='{tmp_path}/a$b/c'")
    assert cfg.paths.data == f"{tmp_path}/a$b/c"  # there is a folder of that name


def test_a_run_and_its_resumption_below_home(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path / "home"), "PLACE": "here"}
    ran = train(
        *QUICK, "paths.outputs=~/runs", "hydra.run.dir='~/runs/$PLACE'", cwd=tmp_path, env=env
    ).succeeded()
    folder = tmp_path / "home/runs/here"
    assert (folder / "status.json").exists()
    again = train("resume=~/runs/here", "trainer.epochs=2", cwd=tmp_path, env=env).succeeded()
    assert "epoch 2/2" in again.out
    assert [path.name for path in tmp_path.iterdir()] == ["home"], ran.out
