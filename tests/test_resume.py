"""Runs that are cut off at any point and go on as if they had not been."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import QUICK, ROOT, Ran, rows, status, train, untimed, wandb_runs

from eqprop import checkpoint
from eqprop.command import key_of, merge, quoted

RUN = (*QUICK, "trainer.epochs=3", "trainer.log_every=2", "checkpoint.share=1")
KILL = """
import os, signal, sys
step, sys.argv[1:] = int(sys.argv[1]), sys.argv[2:]
from eqprop.training import Training
update = Training.update
def killing(self, *args):
    if self.step == step:
        os.kill(os.getpid(), signal.SIG{name})
    return update(self, *args)
Training.update = killing
from eqprop.cli import run
run()
"""


def killed(step: int, *arguments: str, cwd: Path, name: str = "KILL") -> Ran:
    """A run to which a signal comes at the beginning of a step."""
    script = cwd / f"kill-{name}.py"
    script.write_text(KILL.replace("{name}", name))
    return train(str(step), *arguments, cwd=cwd, script=script)


def learnt(folder: Path) -> tuple[Any, ...]:
    """What must be the same, whatever happened on the way."""
    files = [checkpoint.read(folder / "checkpoints" / name) for name in ("last.pt", "best.pt")]
    return [f.body for f in files], untimed(rows(folder)), status(folder)["objective"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """A run of 3 epochs of 13 steps each with each model, left alone."""
    made = {}
    for model in ("gaussian", "hopfield"):
        cwd = tmp_path_factory.mktemp(model)
        made[model] = train(f"model={model}", *RUN, "hydra.run.dir=a", cwd=cwd).succeeded()
    return made


def outcome(cwd: Path) -> tuple[Any, ...]:
    return learnt(cwd / "a")


@pytest.mark.parametrize("model", ["gaussian", "hopfield"])
@pytest.mark.parametrize("every_steps", ["null", "4"])
def test_killed_three_times_it_ends_with_the_same_bytes(
    model: str, every_steps: str, alone: dict[str, Ran], tmp_path: Path
) -> None:
    command = (f"model={model}", *RUN, f"checkpoint.every_steps={every_steps}", "hydra.run.dir=a")
    assert killed(7, *command, cwd=tmp_path).code == -signal.SIGKILL
    assert status(tmp_path / "a")["state"] == "running"
    for step in (20, 33):
        assert killed(step, "resume=a", cwd=tmp_path).code == -signal.SIGKILL
    ran = train("resume=a", cwd=tmp_path).succeeded()
    assert outcome(tmp_path) == outcome(alone[model].cwd)
    assert ran.folders == []  # no new folder
    found = status(tmp_path / "a")
    assert (found["state"], len(found["resumed"])) == ("done", 3)


@pytest.mark.parametrize("step", [1, 13, 14, 39])
def test_killed_at_the_edges_of_epochs(step: int, alone: dict[str, Ran], tmp_path: Path) -> None:
    command = (*RUN, "checkpoint.every_steps=1", "hydra.run.dir=a")
    assert killed(step, *command, cwd=tmp_path).code == -signal.SIGKILL
    train("resume=auto", *command, cwd=tmp_path).succeeded()
    assert outcome(tmp_path) == outcome(alone["gaussian"].cwd)


def test_a_torn_line_and_rows_after_the_checkpoint_are_dropped(
    alone: dict[str, Ran], tmp_path: Path
) -> None:
    killed(20, *RUN, "hydra.run.dir=a", cwd=tmp_path)
    with open(tmp_path / "a" / "metrics.jsonl", "a") as file:
        file.write('{"step": 20, "epoch": 2}\n{"step": 22, "ep')
    train("resume=a", cwd=tmp_path).succeeded()
    assert outcome(tmp_path) == outcome(alone["gaussian"].cwd)


def test_metrics_that_are_gone_are_a_warning(tmp_path: Path) -> None:
    killed(20, *RUN, "hydra.run.dir=a", cwd=tmp_path)
    (tmp_path / "a" / "metrics.jsonl").write_text('{"step": 2, "epoch": 1}\n{"st')
    ran = train("resume=a", cwd=tmp_path)
    assert ran.code == 0
    assert "shorter than the checkpoint says" in ran.out
    assert [row["step"] for row in rows(tmp_path / "a")][:2] == [2, 14]


def test_with_all_kinds_of_generators(tmp_path: Path) -> None:
    """An energy, a solver and an optimizer that draw from every source there is."""
    (tmp_path / "mine.py").write_text(NOISY)
    command = (
        *RUN,
        *("model._target_=mine.Noisy", "dynamics=euler", "dynamics._target_=mine.Wild"),
        *("optimizer=sgd", "optimizer.momentum=0.9", "checkpoint.every_steps=3"),
    )
    train(*command, "hydra.run.dir=alone", cwd=tmp_path).succeeded()
    killed(20, *command, "hydra.run.dir=a", cwd=tmp_path)
    train("resume=a", cwd=tmp_path).succeeded()
    assert learnt(tmp_path / "a") == learnt(tmp_path / "alone")


NOISY = """
import random
import numpy as np
import torch
from eqprop import ConditionalGaussian
from eqprop.relaxation import Euler

class Noisy(ConditionalGaussian):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.own = torch.Generator().manual_seed(3)

class Wild(Euler):
    def __init__(self, **options):
        super().__init__(**options)
        self.mine, self.python = np.random.default_rng(5), random.Random(6)
    def relax(self, model, n_steps, measure=False):
        if model.generator is not None:
            scale = 1e-3 * (random.random() + np.random.rand() + self.mine.random() +
                self.python.random() + float(torch.rand(())) +
                float(torch.rand((), generator=model.own)))
            model.u[-1].add_(scale)
        return super().relax(model, n_steps, measure)
"""


# what may change


def interrupted(cwd: Path, *more: str) -> Path:
    killed(20, *RUN, *more, "hydra.run.dir=a", cwd=cwd)
    return cwd / "a"


REFUSED = {
    "seed=3": "seed (2019 → 3)",
    "optimizer.lr=0.01": "optimizer.lr (0.001 → 0.01)",
    "model.hidden=[8]": "model.hidden ([16] → [8])",
    "dataset.batch_size=50": "dataset.batch_size (100 → 50)",
    "estimator.beta=0.5": "estimator.beta (1.0 → 0.5)",
    "cost=mse": "cost._target_ ('eqprop.CrossEntropy' → 'eqprop.SquaredError')",
    "device.dtype=float64": "device.dtype ('float32' → 'float64')",
}


def test_what_decides_the_learning_may_not_change(tmp_path: Path) -> None:
    folder = interrupted(tmp_path)
    before = {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    for override, words in REFUSED.items():
        ran = train("resume=a", override, cwd=tmp_path)
        assert ran.code == 2
        assert words in ran.error
    ran = train("resume=a", "seed=3", "optimizer.lr=0.5", cwd=tmp_path)
    assert "seed (2019 → 3), optimizer.lr (0.001 → 0.5)" in ran.error
    after = {p: p.read_bytes() for p in before}
    after.pop(folder / "run.log"), before.pop(folder / "run.log")
    assert after == before


def test_the_rest_may_change(alone: dict[str, Ran], tmp_path: Path) -> None:
    folder = interrupted(tmp_path)
    free = ("trainer.log_every=1", "trainer.eval_batch_size=7", "checkpoint.keep=1", "name=x")
    train("resume=a", *free, "trainer.epochs=4", "trainer.eval_every=2", cwd=tmp_path).succeeded()
    steps = [row["step"] for row in rows(folder) if "time/train_s" not in row]
    assert steps == [*range(2, 13, 2), *range(14, 53)]
    config = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
    assert (config["trainer"]["epochs"], config["name"]) == (4, "x")
    overrides = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())
    assert "trainer.epochs=4" in overrides
    assert "trainer.epochs=3" not in overrides
    # a finished run has more to do when there are more epochs, and nothing else to do
    train("resume=a", "trainer.epochs=5", cwd=tmp_path).succeeded()
    assert rows(folder)[-1]["epoch"] == 5


def test_other_threads_are_a_warning(tmp_path: Path) -> None:
    interrupted(tmp_path)
    ran = train("resume=a", "device.threads=2", cwd=tmp_path)
    assert ran.code == 0
    assert "the last digits may differ from an uninterrupted run: threads 1 → 2" in ran.out


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    train(*RUN, "hydra.run.dir=a", cwd=tmp_path).succeeded()
    folder = tmp_path / "a"
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".log"}
    for command in (["resume=a"], ["resume=auto", *RUN, "hydra.run.dir=a"]):
        ran = train(*command, cwd=tmp_path).succeeded()
        assert "is done already" in ran.out
    after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".log"}
    assert after == before


def test_auto_begins_where_there_is_nothing(tmp_path: Path) -> None:
    ran = train(*QUICK, "resume=auto", "hydra.run.dir=a", cwd=tmp_path).succeeded()
    assert "epoch 1/1" in ran.out
    assert "resumed" not in status(tmp_path / "a")


def test_auto_refuses_changes_too(tmp_path: Path) -> None:
    interrupted(tmp_path)
    ran = train(*RUN, "seed=5", "resume=auto", "hydra.run.dir=a", cwd=tmp_path)
    assert ran.code == 2
    assert "seed (2019 → 5)" in ran.error


def test_a_run_in_a_strange_folder_tells_how_to_go_on(tmp_path: Path) -> None:
    """Spaces, quotes, brackets: the line that is printed works as it is printed."""
    name = 'it\'s [a] "b" é,=c'
    ran = killed(20, *RUN, f"hydra.run.dir={quoted(name)}", cwd=tmp_path, name="TERM")
    assert ran.code == 143
    assert (tmp_path / name / "status.json").exists()
    words = shlex.split(ran.error.partition("go on with: ")[2])
    assert train(*words[2:], cwd=tmp_path).succeeded().code == 0
    assert status(tmp_path / name)["state"] == "done"


def test_trackers_go_on_under_the_same_id(tmp_path: Path) -> None:
    command = (*RUN[:2], *RUN[4:], "hydra.run.dir=outputs/a")
    killed(20, *command, cwd=tmp_path, name="TERM")
    (tmp_path / "outputs" / "a").rename(tmp_path / "outputs" / "b")
    train("resume=outputs/b", "trainer.epochs=4", cwd=tmp_path).succeeded()
    first, second = wandb_runs(tmp_path)
    assert first["run_id"] == second["run_id"] == "a"
    assert second["state"] == "finished"


def test_no_such_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for command, words in (
        ("resume=nowhere", "there is no folder nowhere"),
        ("resume=empty", "empty holds no run"),
        ("rerun=nowhere", "there is no folder nowhere"),
        ("resume=3", "there is no folder 3"),
        ("resume=empty rerun=empty", "cannot go together"),
    ):
        ran = train(*command.split(), cwd=tmp_path)
        assert ran.code == 2
        assert words in ran.error
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]


def test_a_multirun_cannot_resume_one_run(tmp_path: Path) -> None:
    interrupted(tmp_path)
    assert "not with a multirun" in train("-m", "resume=a", cwd=tmp_path).error


def test_another_run_s_record_is_not_overwritten(tmp_path: Path) -> None:
    folder = interrupted(tmp_path)
    before = (folder / ".hydra" / "config.yaml").read_bytes()
    ran = train(*RUN, "seed=4", "hydra.run.dir=a", cwd=tmp_path)
    assert ran.code == 2
    assert "resume=a" in ran.error
    assert (folder / ".hydra" / "config.yaml").read_bytes() == before


def test_options_of_one_s_own_are_found_again(tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    text = (ROOT / "conf" / "model" / "gaussian.yaml").read_text()
    (tmp_path / "mine" / "model" / "other.yaml").write_text(text)
    killed(20, "--config-dir", "mine", *RUN, "model=other", "hydra.run.dir=a", cwd=tmp_path)
    train("resume=a", cwd=tmp_path).succeeded()


# rerun


def test_a_rerun_gives_the_same_numbers(alone: dict[str, Ran], tmp_path: Path) -> None:
    before = alone["hopfield"].cwd / "a"
    ran = train(f"rerun={before}", "hydra.run.dir=b", cwd=tmp_path).succeeded()
    assert learnt(tmp_path / "b")[0] == learnt(before)[0]
    assert untimed(rows(tmp_path / "b")) == untimed(rows(before))
    assert ran.code == 0


def test_a_rerun_may_change_anything(alone: dict[str, Ran], tmp_path: Path) -> None:
    before = alone["hopfield"].cwd / "a"
    train(f"rerun={before}", "seed=3", "trainer.epochs=1", cwd=tmp_path).succeeded()


def test_a_rerun_under_other_defaults_is_refused(alone: dict[str, Ran], tmp_path: Path) -> None:
    before = alone["gaussian"].cwd / "a"
    recorded = before / ".hydra" / "config.yaml"
    saved = recorded.read_text()
    recorded.write_text(saved.replace("lr: 0.001", "lr: 0.002"))
    try:
        ran = train(f"rerun={before}", cwd=tmp_path)
    finally:
        recorded.write_text(saved)
    assert ran.code == 2
    assert "optimizer.lr (0.002 → 0.001)" in ran.error


# the command line


@pytest.mark.parametrize(
    ("recorded", "new", "merged"),
    [
        ("a=1 b=2", "b=3", "a=1 b=3"),
        ("model=hopfield model.hidden=[3]", "model=gaussian", "model=gaussian"),
        ("+x=1 ~y", "++x=2", "~y ++x=2"),
        ("tracking.tags=[a] tracking.trackers.w.mode=online", "tracking=none",
         "tracking.tags=[a] tracking=none"),
    ],
)  # fmt: skip
def test_merge(recorded: str, new: str, merged: str) -> None:
    assert merge(recorded.split(), new.split()) == merged.split()


def test_key_of() -> None:
    words = ("a.b=c=d", "+a.b=1", "~a.b", "++a.b@x=1")
    assert {key_of(word) for word in words} == {"a.b"}


def test_quoted_is_read_back_by_hydra() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for text in ("plain/a-b.c", "a b", "it's", 'q"q', "back\\", 'x\\"y', "a,b", "[1]", "${no}"):
        (override,) = OverridesParser.create().parse_overrides([f"k={quoted(text)}"])
        value = str(override.value())
        assert value.replace("\\${", "${") == text
