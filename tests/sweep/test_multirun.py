"""A sweep: one command, many runs, side by side."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
import yaml
from running import QUICK, Ran, rows, status, train, untimed, wandb_runs


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    sweep = ("-m", "model=gaussian,hopfield", "optimizer.lr=1e-3,3e-3")
    return train(*sweep, *QUICK[:3], cwd=tmp_path_factory.mktemp("sweep")).succeeded()


def config_of(folder: Path) -> dict:
    return yaml.safe_load((folder / ".hydra/config.yaml").read_text())


def test_four_folders(ran: Ran) -> None:
    assert len(ran.folders) == 4
    (sweep,) = {folder.parent for folder in ran.folders}
    assert re.fullmatch(r"multirun/[\d-]{10}/[\d-]{8}", str(sweep.relative_to(ran.cwd / "outputs")))
    cells = itertools.product(["gaussian", "hopfield"], [1e-3, 3e-3])
    targets = {"gaussian": "eqprop.network.Gaussian", "hopfield": "eqprop.network.Hopfield"}
    for number, (folder, (model, lr)) in enumerate(zip(ran.folders, cells, strict=True)):
        assert re.fullmatch(rf"{number}-{model}-digits-[0-9a-f]{{6}}", folder.name)
        config = config_of(folder)
        assert (config["model"]["_target_"], config["optimizer"]["lr"]) == (targets[model], lr)


def test_each_job_has_the_whole_record(ran: Ran) -> None:
    for folder in ran.folders:
        found = status(folder)
        accuracies = [row["accuracy/validation"] for row in rows(folder) if "time/eval_s" in row]
        assert (found["state"], found["objective"]) == ("done", max(accuracies))
        assert (folder / "run.log").read_text().count("epoch 1/1") == 1
        command = json.loads((folder / "environment.json").read_text())["command"]
        assert f"optimizer.lr={config_of(folder)['optimizer']['lr']}" in command


def test_four_wandb_runs_in_one_group(ran: Ran) -> None:
    found = wandb_runs(ran.cwd)
    assert len(found) == 4
    assert len({run["run_group"] for run in found}) == 1
    assert found[0]["run_group"]
    configs = [{"callbacks": {}, **run["config"]} for run in found]  # W&B drops what is empty
    assert all(config_of(folder) in configs for folder in ran.folders)
    assert {run["state"] for run in found} == {"finished"}


def test_a_job_is_the_run_of_its_own_command(ran: Ran, tmp_path: Path) -> None:
    single = train(*QUICK, "model=hopfield", "optimizer.lr=3e-3", cwd=tmp_path).succeeded()
    assert untimed(single.rows) == untimed(rows(ran.folders[3]))
    ours, theirs = config_of(single.folder), config_of(ran.folders[3])
    assert {**ours, "tracking": None} == {**theirs, "tracking": None}


def test_seeds(tmp_path: Path) -> None:
    ran = train("-m", *QUICK, "seed=range(3)", cwd=tmp_path).succeeded()
    assert [config_of(folder)["seed"] for folder in ran.folders] == [0, 1, 2]
    found = [untimed(rows(folder)) for folder in ran.folders]
    assert len({str(row) for row in found}) == 3


LAUNCHER = """
import json
from pathlib import Path
from hydra._internal.core_plugins.basic_launcher import BasicLauncher

class Noting(BasicLauncher):
    def launch(self, job_overrides, initial_job_idx):
        jobs = super().launch(job_overrides, initial_job_idx)
        Path("objectives.json").write_text(json.dumps([job.return_value for job in jobs]))
        return jobs
"""


def test_main_returns_the_objective(tmp_path: Path) -> None:
    """To whoever launches the jobs: Hydra's own sweeper, and launchers made for it, still work."""
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins/noting.py").write_text(LAUNCHER)
    (tmp_path / "conf/hydra/launcher").mkdir(parents=True)
    target = "_target_: hydra_plugins.noting.Noting\n"
    (tmp_path / "conf/hydra/launcher/noting.yaml").write_text(target)
    flags = ("-m", "--config-dir=conf", "hydra/sweeper=basic", "hydra/launcher=noting")
    ran = train(*flags, *QUICK, "dataset.validation=0,0.1", cwd=tmp_path).succeeded()
    returned = json.loads((tmp_path / "objectives.json").read_text())
    assert returned == [status(folder)["objective"] for folder in ran.folders]
    (last,) = [row for row in rows(ran.folders[0]) if "accuracy/test" in row]
    assert returned[0] == last["accuracy/test"]


def test_cells_that_are_all_bad_are_refused_before_anything_starts(tmp_path: Path) -> None:
    ran = train("-m", *QUICK, "model=hopfield", "dynamics.init=feedforward", cwd=tmp_path)
    assert ran.code == 2
    assert "dynamics.init" in ran.error
    assert list(tmp_path.iterdir()) == []


def test_a_bad_cell_does_not_keep_the_others(tmp_path: Path) -> None:
    ran = train("-m", *QUICK, "model=gaussian,hopfield", "dynamics.init=feedforward", cwd=tmp_path)
    assert ran.code == 1
    (warning,) = ran.err.splitlines()
    assert "dynamics.init" in warning
    assert "model=hopfield" in warning
    (line,) = (line for line in ran.out.splitlines() if line.startswith("job 1 (model=hopfield)"))
    assert "dynamics.init" in line
    assert status(ran.folders[0])["state"] == "done"


def test_a_job_that_fails_is_one_line_and_its_own_record(tmp_path: Path) -> None:
    """Nobody knows before it is run that the data of one job are missing."""
    ran = train("-m", *QUICK[1:], "dataset=digits,mnist", "dataset.download=false", cwd=tmp_path)
    assert (ran.code, ran.err) == (1, "")
    assert "Traceback" not in ran.out
    (line,) = (line for line in ran.out.splitlines() if line.startswith("job 1 (dataset=mnist)"))
    assert "MNIST/raw" in line  # why
    assert str(ran.folders[1].relative_to(tmp_path)) in line
    assert [status(folder)["state"] for folder in ran.folders] == ["done", "failed"]
    assert ran.folders[1].joinpath("run.log").read_text().count("missing in") == 1
