"""What a resumed run may change, what it may not, and what there is nothing to resume of."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from interrupted import RUN, killed
from running import QUICK, rows, status, train

from eqprop.run.environment import versions
from eqprop.run.resume import warn_of_differences


def interrupted(cwd: Path, *more: str) -> Path:
    killed(20, *RUN, *more, "hydra.run.dir=a", cwd=cwd)
    return cwd / "a"


REFUSED = {
    "seed=3": "seed (2019 → 3)",
    "optimizer.lr=0.01": "optimizer.lr (0.001 → 0.01)",
    "model.hidden=[8]": "model.hidden ([16] → [8])",
    "dataset.batch_size=50": "dataset.batch_size (100 → 50)",
    "estimator.beta=0.5": "estimator.beta (1.0 → 0.5)",
    "noise=weights": "noise._target_ (null → 'eqprop.training.noise.WeightNoise')",
    "ablation=frozen_lower": "ablation._target_ (null → ",
    "cost=mse": "cost._target_ ('eqprop.CrossEntropy' → 'eqprop.SquaredError')",
    "device.dtype=float64": "device.dtype ('float32' → 'float64')",
    "trainer.limit_batches=5": "trainer.limit_batches (null → 5)",
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


def test_weights_alone_are_no_training_to_go_on_with(tmp_path: Path) -> None:
    train(*RUN, "hydra.run.dir=a", cwd=tmp_path).succeeded()
    ran = train("resume=a/checkpoints/best.pt", "trainer.epochs=9", cwd=tmp_path)
    assert ran.code == 2
    assert "best.pt holds weights only" in ran.error
    assert "\n" not in ran.error.strip()


def test_the_rest_may_change(tmp_path: Path) -> None:
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


def test_other_arithmetic_is_a_warning(tmp_path: Path) -> None:
    interrupted(tmp_path, "dynamics.tol=0", "device.compile=false")
    ran = train("resume=a", "device.compile=true", "device.matmul=medium", cwd=tmp_path)
    assert ran.code == 0
    assert "run: matmul 'highest' → 'medium', compiled false → true" in ran.out


def test_the_same_arithmetic_by_another_option_is_none(tmp_path: Path) -> None:
    interrupted(tmp_path, "device.compile=auto")
    ran = train("resume=a", "device.compile=false", cwd=tmp_path).succeeded()
    assert "the last digits" not in ran.out


def test_a_checkpoint_that_does_not_know_how_it_computed_is_not_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One of an earlier version lacks what is compared today."""
    warn_of_differences({"versions": versions()}, {"compiled": True, "matmul": "high"})
    assert not caplog.records
    warn_of_differences({"versions": {"torch": "2.0"}, "compiled": None}, {"compiled": True})
    (line,) = caplog.messages
    assert line.endswith(f"torch '2.0' → '{versions()['torch']}', compiled null → true")


def test_auto_without_a_folder_says_that_it_begins_anew(tmp_path: Path) -> None:
    ran = train(*QUICK, "resume=auto", cwd=tmp_path)
    assert ran.code == 0
    assert "resume=auto: hydra.run.dir is a new folder for every command" in ran.error
    train(*QUICK, "resume=auto", "hydra.run.dir=a", cwd=tmp_path).succeeded()


def test_auto_with_a_flag_after_the_overrides(tmp_path: Path) -> None:
    """Hydra takes overrides in one piece only: ours are not put behind the flags."""
    command = (*RUN, "resume=auto", "hydra.run.dir=a", "--config-dir", str(tmp_path))
    killed(20, *command, cwd=tmp_path)
    train(*command, cwd=tmp_path).succeeded()
    assert rows(tmp_path / "a")[-1]["epoch"] == 3


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


def test_a_resumed_run_stays_in_its_folder(tmp_path: Path) -> None:
    interrupted(tmp_path)
    ran = train("resume=a", "hydra.run.dir=b", cwd=tmp_path)
    assert ran.code == 2
    assert "leave hydra.run.dir out" in ran.error
    assert not (tmp_path / "b").exists()


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
