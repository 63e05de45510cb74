"""Runs that are cut off at any point and go on as if they had not been."""

from __future__ import annotations

import math
import os
import shlex
import signal
from pathlib import Path

import pytest
from interrupted import RUN, alone, killed, learnt, with_code
from running import ROOT, rows, status, train, wandb_runs

from eqprop.cli.command import quoted
from eqprop.run.resume import cut_metrics


@pytest.mark.parametrize(("model", "every_steps"), [("gaussian", "4"), ("hopfield", "null")])
def test_killed_three_times_it_ends_with_the_same_bytes(
    model: str, every_steps: str, tmp_path: Path
) -> None:
    command = (f"model={model}", *RUN, f"checkpoint.every_steps={every_steps}", "hydra.run.dir=a")
    assert killed(7, *command, cwd=tmp_path).code == -signal.SIGKILL
    assert status(tmp_path / "a")["state"] == "running"
    for step in (20, 33):
        assert killed(step, "resume=a", cwd=tmp_path).code == -signal.SIGKILL
    ran = train("resume=a", cwd=tmp_path).succeeded()
    assert learnt(tmp_path / "a") == learnt(alone(f"model={model}"))
    assert ran.folders == []  # no new folder
    found = status(tmp_path / "a")
    assert (found["state"], len(found["resumed"])) == ("done", 3)


@pytest.mark.parametrize("step", [1, 13, 14, 39])
def test_killed_at_the_edges_of_epochs(step: int, tmp_path: Path) -> None:
    command = (*RUN, "checkpoint.every_steps=1", "hydra.run.dir=a")
    assert killed(step, *command, cwd=tmp_path).code == -signal.SIGKILL
    train("resume=auto", *command, cwd=tmp_path).succeeded()
    assert learnt(tmp_path / "a") == learnt(alone())


def test_augmented_pictures_are_the_same_after_a_kill(tmp_path: Path) -> None:
    keys = ("dataset.augment.crop=2", "dataset.augment.flip=true")
    command = (*RUN, *keys, "checkpoint.every_steps=4", "hydra.run.dir=a")
    assert killed(20, *command, cwd=tmp_path).code == -signal.SIGKILL
    train("resume=a", cwd=tmp_path).succeeded()
    assert learnt(tmp_path / "a") == learnt(alone(*keys))
    assert learnt(alone(*keys)) != learnt(alone())


GOING_ON = [
    ("noise=state", "noise.at=step", "model=hopfield", "ablation=frozen_lower"),
    ("noise=mismatch", "estimator=ep_centered"),
    ("scheduler=warmup_cosine", "optimizer.lr=[1e-3,2e-3]", "optimizer.clip_norm=0.1"),
    ("model=hopfield", "dynamics.init=previous"),
    ("estimator=ep_random_sign",),
    ("model=hopfield", "model.feedback=fixed", "estimator=asymmetric"),
    ("model=hopfield", "model.feedback=learned", "optimizer=adamw", "optimizer.lr=[1e-3,2e-3]"),
    ("model=hopfield", "dynamics.init=previous", "estimator=coupled"),
    ("estimator=continual", "optimizer.lr=2e-3", "optimizer.momentum=0.5"),
    ("model=hopfield", "dynamics.init=per_example", "scheduler=cosine"),
    (
        *("model=predictive_coding", "model.hidden=[{conv:4,kernel:3,pool:max}]", "dataset.pad=1"),
        *("dataset.augment.crop=2", "dataset.augment.flip=true", "scheduler=cosine"),
        *("optimizer=sgd", "optimizer.lr=0.05", "optimizer.momentum=0.9"),
    ),
]


@pytest.mark.parametrize("keys", GOING_ON, ids=str)
def test_rates_and_states_go_on_after_a_kill(keys: tuple[str, ...], tmp_path: Path) -> None:
    command = (*RUN, *keys, "checkpoint.every_steps=4", "hydra.run.dir=a")
    for step, words in ((7, command), (20, ("resume=a",)), (27, ("resume=a",))):
        assert killed(step, *words, cwd=tmp_path).code == -signal.SIGKILL
    train("resume=a", cwd=tmp_path).succeeded()
    assert learnt(tmp_path / "a") == learnt(alone(*keys))


def test_a_cosine_is_extended_with_the_run(tmp_path: Path) -> None:
    command = (*RUN, "scheduler=cosine", "optimizer.lr=0.5", "hydra.run.dir=a")
    train(*command, cwd=tmp_path).succeeded()
    train("resume=a", "trainer.epochs=6", cwd=tmp_path).succeeded()
    found = {
        row["epoch"]: row["learning_rate"] for row in rows(tmp_path / "a") if "learning_rate" in row
    }
    expected = [0.25 * (1 + math.cos(math.pi * epoch / 6)) for epoch in range(3, 6)]
    assert [found[epoch] for epoch in (4, 5, 6)] == pytest.approx(expected)


DYING = """
import os, signal
replace, left = os.replace, {count}
def killing(*paths):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*paths)
os.replace = killing
"""


@pytest.mark.parametrize("count", range(1, 8))
def test_killed_while_it_begins(count: int, tmp_path: Path) -> None:
    """Before each of its first files: as soon as there is a record, it can be resumed."""
    command = (*RUN, "hydra.run.dir=a")
    ran = with_code(DYING.format(count=count), *command, cwd=tmp_path)
    assert ran.code == -signal.SIGKILL
    has_begun = (tmp_path / "a" / "status.json").exists()
    train(*(["resume=a"] if has_begun else command), cwd=tmp_path).succeeded()
    assert learnt(tmp_path / "a") == learnt(alone())
    assert list((tmp_path / "a").rglob("*.tmp")) == []


def test_a_torn_line_and_rows_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    killed(20, *RUN, "hydra.run.dir=a", cwd=tmp_path)
    with open(tmp_path / "a" / "metrics.jsonl", "a") as file:
        file.write('{"step": 20, "epoch": 2}\n{"step": 22, "ep')
    train("resume=a", cwd=tmp_path).succeeded()
    assert learnt(tmp_path / "a") == learnt(alone())


def test_metrics_that_are_gone_are_a_warning(tmp_path: Path) -> None:
    killed(20, *RUN, "hydra.run.dir=a", cwd=tmp_path)
    (tmp_path / "a" / "metrics.jsonl").write_text('{"step": 2, "epoch": 1}\n{"st')
    ran = train("resume=a", cwd=tmp_path)
    assert ran.code == 0
    assert "shorter than the checkpoint says" in ran.out
    assert [row["step"] for row in rows(tmp_path / "a")][:2] == [2, 14]


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
    def relax(self, network, state, nudge, *args):
        if nudge is not None:
            scale = 1e-3 * (random.random() + np.random.rand() + self.mine.random() +
                self.python.random() + float(torch.rand(())) +
                float(torch.rand((), generator=network.own)))
            state.u[-1].add_(scale)
            state.moved(2)
        return super().relax(network, state, nudge, *args)
"""


def test_metrics_that_are_not_there_are_a_warning(tmp_path: Path) -> None:
    killed(20, *RUN, "hydra.run.dir=a", cwd=tmp_path)
    (tmp_path / "a" / "metrics.jsonl").unlink()
    ran = train("resume=a", cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert "metrics.jsonl is gone: the rows before the checkpoint are lost" in ran.out
    assert rows(tmp_path / "a")[0]["step"] == 14


def test_the_cut_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a row is written after it: else a crash could leave rows twice."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    cut_metrics(path, 12)
    assert sizes == [12]
    assert path.read_text() == '{"step": 1}\n'


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
    (only,) = wandb_runs(tmp_path)  # the resumed run has sent all of it again, as one entry
    assert (only["run_id"], only["state"]) == ("a", "finished")


def test_options_of_one_s_own_are_found_again(tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    text = (ROOT / "conf" / "model" / "gaussian.yaml").read_text()
    (tmp_path / "mine" / "model" / "other.yaml").write_text(text)
    killed(20, "--config-dir", "mine", *RUN, "model=other", "hydra.run.dir=a", cwd=tmp_path)
    train("resume=a", cwd=tmp_path).succeeded()
