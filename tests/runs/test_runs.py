"""A whole run, and everything that it leaves behind."""

from __future__ import annotations

import json
import math
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from running import QUICK, Ran, train, untimed, wandb_runs

from eqprop.relaxation import Newton

PARAMETERS = ("W.0.weight", "W.0.bias", "W.1.weight", "W.1.bias")
STEP_KEYS = {
    "step",
    "epoch",
    "learning_rate",
    *(f"energy/{which}" for which in ("free", "nudged", "difference")),
    *(f"cost/{phase}" for phase in ("free", "nudged")),
    *(
        f"relaxation/{phase}_{what}"
        for phase in ("free", "nudged")
        for what in ("steps", "residual")
    ),
    *(
        f"{what}/{layer}"
        for what in ("energy/layer", "saturation", "relaxation/nudged_residual")
        for layer in (1, 2)
    ),
    *(f"{what}_norm/{name}" for what in ("gradient", "weight") for name in PARAMETERS),
}
EPOCH_KEYS = {
    *("step", "epoch", "accuracy/train", "accuracy/validation", "cost/train", "cost/validation"),
    *("time/train_s", "time/eval_s", "throughput/examples_per_s"),
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Two epochs of 13 steps each, recorded in W&B too, started in a new interpreter."""
    overrides = [
        *QUICK[:2],
        *(
            "trainer.epochs=2",
            "trainer.log_every=5",
            "seed=7",
            "name=first try",
            "paths.data=my data",
        ),
        *("tracking.tags=[a,b]", "tracking.group=pilot", "tracking.notes='seed ${seed}'"),
    ]
    return train(*overrides, cwd=tmp_path_factory.mktemp("a run"), cold=True).succeeded()


def test_the_folder(ran: Ran) -> None:
    names = {"metrics.jsonl", "status.json", "environment.json", "run.log", "checkpoints", ".hydra"}
    names |= {"curves.jsonl", "evaluation.json", "pictures"}
    assert {path.name for path in ran.folder.iterdir()} - {".lock"} == names
    outputs = ran.cwd / "outputs"
    date, name = ran.folder.relative_to(outputs).parts
    datetime.strptime(date, "%Y-%m-%d")
    datetime.strptime(name[:8], "%H-%M-%S")
    assert name[8:-6] == "-first-try-"
    assert [path.name for path in ran.cwd.iterdir()] == ["outputs"]
    assert {path.name for path in outputs.iterdir()} == {date, "wandb"}


def test_the_configuration(ran: Ran) -> None:
    config = yaml.safe_load((ran.folder / ".hydra/config.yaml").read_text())
    assert config["tracking"]["notes"] == "seed 7"  # resolved
    assert config["dataset"]["_target_"] == "eqprop.data.Digits"
    assert (config["seed"], config["name"], config["model"]["hidden"]) == (7, "first try", [16])
    assert "hydra" not in config
    overrides = yaml.safe_load((ran.folder / ".hydra/overrides.yaml").read_text())
    assert "seed=7" in overrides


def test_the_metrics(ran: Ran) -> None:
    rows = ran.rows
    measured = [row for row in rows if "energy/free" in row]
    assert [row["step"] for row in rows] == [5, 10, 13, 15, 20, 25, 26]
    assert [row["epoch"] for row in rows] == [1, 1, 1, 2, 2, 2, 2]
    assert [set(row) for row in measured] == [STEP_KEYS] * 5
    first, last = ran.epochs
    tested = {"accuracy/test", "cost/test", "energy/test"}
    assert set(first) == set(last) == EPOCH_KEYS | tested  # the first is the best so far
    assert all(math.isfinite(value) for row in rows for value in row.values())


def test_the_metrics_agree_with_each_other(ran: Ran) -> None:
    dynamics = yaml.safe_load((ran.folder / ".hydra/config.yaml").read_text())["dynamics"]
    for row in ran.rows:
        if "energy/free" in row:
            difference = row["energy/nudged"] - row["energy/free"]
            assert row["energy/difference"] == pytest.approx(difference)
            layers = row["energy/layer/1"] + row["energy/layer/2"]
            assert layers == pytest.approx(row["energy/nudged"])
            assert row["energy/free"] == row["relaxation/free_steps"] == 0  # a feed-forward pass
            assert row["relaxation/nudged_steps"] == (dynamics["n_nudged"] or Newton().n_nudged)
            assert row["cost/nudged"] < row["cost/free"]
    for row in ran.epochs:
        examples = row["throughput/examples_per_s"] * row["time/train_s"]
        assert examples == pytest.approx(1298)
        assert row["time/eval_s"] > 0


def test_the_status(ran: Ran) -> None:
    status = ran.status
    assert (status["state"], status["exit_code"], status["reason"]) == ("done", 0, None)
    assert status["objective"] == max(row["accuracy/validation"] for row in ran.epochs)
    start, end = (datetime.fromisoformat(status[key]) for key in ("start", "end"))
    assert start < end
    assert status["pid"] > 0
    assert status["host"]


def test_the_environment(ran: Ran) -> None:
    found = json.loads((ran.folder / "environment.json").read_text())
    text = json.dumps(found)
    for package in ("python", "eqprop", "torch", "numpy", "hydra", "omegaconf", "wandb"):
        assert package in text
    assert "trainer.log_every=5" in text  # the command


def test_what_is_printed(ran: Ran) -> None:
    lines = ran.out.splitlines()
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line.split("  ")[0] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    for line, row in zip(epochs, ran.epochs, strict=True):
        for split in ("train", "validation"):
            cost = f"(cost {row[f'cost/{split}']:.4g})"
            assert f"{split} {100 * row[f'accuracy/{split}']:.2f} % {cost}" in line
        assert "examples/s" in line
    for split in ("train", "validation", "test"):
        (shown,) = (line for line in lines if split in line and "│" in line)
        for which in ("best", "last"):
            assert f"{100 * ran.status[which][f'accuracy/{split}']:.2f} %" in shown
    assert any(line.endswith(str(ran.folder)) for line in lines)
    assert any("wandb leet outputs/wandb" in line for line in lines)
    assert "\x1b" not in ran.out


def test_the_log(ran: Ran) -> None:
    log = (ran.folder / "run.log").read_text().splitlines()
    assert sum(": epoch " in line for line in log) == 2
    for line, printed in zip(log, ran.out.splitlines(), strict=False):
        datetime.strptime(line[:19], "%Y-%m-%d %H:%M:%S")
        assert "INFO" in line
        assert line.endswith(printed)


def test_the_same_in_wandb(ran: Ran) -> None:
    (found,) = wandb_runs(ran.cwd)
    assert found["run_id"] in ran.folder.name
    config = yaml.safe_load((ran.folder / ".hydra/config.yaml").read_text())
    assert found["config"] == {key: part for key, part in config.items() if part != {}}
    assert (found["state"], found["project"]) == ("finished", "eqprop")
    assert (found["tags"], found["notes"]) == (["a", "b"], "seed 7")
    assert found["run_group"] == "pilot"
    for split in ("train", "validation", "test"):
        for which in ("best", "last"):
            value = ran.status[which][f"accuracy/{split}"]
            assert found["summary"][f"{which}/accuracy/{split}"] == value


BROKEN = """
from eqprop.tracking import Tracker

class Broken(Tracker):
    def __init__(self, where):
        self.where = where
    def start(self, run):
        self.fail("start")
    def log(self, row):
        self.fail("log")
    def finish(self, summary, state):
        self.fail("finish")
    def fail(self, where):
        if where == self.where:
            raise OSError("the tracker's\\ndisk is full")
"""


@pytest.mark.parametrize("where", ["start", "log", "finish"])
def test_a_tracker_that_fails_costs_one_warning(where: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    broken = f"+tracking.trackers.mine={{_target_:broken.Broken,where:{where}}}"
    ran = train(*QUICK, "trainer.log_every=5", broken, cwd=tmp_path)
    assert ran.code == 0
    (warning,) = (line for line in (ran.out + ran.err).splitlines() if "warning" in line)
    assert "Broken" in warning
    assert "disk is full" in warning
    assert (ran.folder / "run.log").read_text().count("WARNING") == 1
    assert [row["step"] for row in ran.rows] == [5, 10, 13]
    assert ran.status["state"] == "done"


def test_a_wandb_that_cannot_write_costs_one_warning(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "wandb").write_text("not a folder")
    ran = train(*QUICK[:3], cwd=tmp_path)
    assert ran.code == 0
    (warning,) = (line for line in (ran.out + ran.err).splitlines() if "warning" in line)
    assert "WandbTracker" in warning
    assert "wandb leet" not in ran.out
    assert ran.status["state"] == "done"


@pytest.mark.parametrize("model", ["gaussian", "hopfield"])
def test_the_seed_decides_everything(model: str, tmp_path: Path) -> None:
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        overrides = (f"model={model}", f"seed={seed}", "trainer.log_every=1", "trainer.epochs=2")
        ran = train(*QUICK, *overrides, "dataset.limit=230", cwd=tmp_path / name)
        found.append(untimed(ran.succeeded().rows))
    assert found[0] == found[1]
    assert all(a != c for a, c in zip(found[0], found[2], strict=True))


def test_without_a_validation_split_the_test_set_is_the_objective(tmp_path: Path) -> None:
    overrides = ("dataset.validation=0", "trainer.epochs=3", "optimizer.lr=0.1")
    ran = train(*QUICK, *overrides, cwd=tmp_path).succeeded()
    accuracies = [row["accuracy/test"] for row in ran.epochs]
    assert len(accuracies) == 3
    assert not any("accuracy/validation" in row for row in ran.rows)
    assert ran.status["objective"] == max(accuracies)
    epochs = [line for line in ran.out.splitlines() if line.startswith("epoch ")]
    assert [line.count("test") for line in epochs] == [1, 1, 1]
