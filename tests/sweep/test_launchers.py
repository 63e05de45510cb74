"""Which launcher ``hydra.launcher`` makes, and what a person sees who has chosen badly."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf
from searching import planned

from eqprop.config.compose import Composer
from eqprop.config.folder import conf_dir
from eqprop.config.targets import locate
from eqprop.run import hardware
from eqprop.run.errors import TRACEBACK, ConfigError
from eqprop.sweep import plugin, start
from eqprop.sweep.job import Job
from eqprop.sweep.plan import Plan
from eqprop.sweep.start import make_launcher, threads_of
from eqprop.sweep.study import Point, Run
from eqprop.sweep.sweeper import make_job

OPTIONS = sorted((conf_dir() / "hydra" / "launcher").glob("*.yaml"))
BASIC = {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}


def option(name: str, **changes: Any) -> dict[str, Any]:
    """The keys of a launcher's file."""
    found: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"hydra/launcher/{name}.yaml"))
    return {**found, **changes}


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: path.stem)
def test_a_file_holds_every_key_and_its_default(path: Path) -> None:
    keys = option(path.stem)
    if importlib.util.find_spec(start.NEEDS[keys["_target_"]][1]) is None:
        pytest.skip("needs the extra")
    parameters = inspect.signature(locate(keys.pop("_target_"))).parameters
    assert keys == {
        name: one.default for name, one in parameters.items() if name not in ("capacity", "folder")
    }


def test_the_names() -> None:
    assert [path.stem for path in OPTIONS] == ["ray", "submitit_slurm"]


@pytest.mark.parametrize(
    ("name", "changes", "line"),
    [
        ("submitit_slurm", {"timeout_min": "abc"}, "timeout_min='abc': must be"),
        ("submitit_slurm", {"cpus_per_task": 0}, "cpus_per_task=0: must be a whole number >= 1"),
        ("submitit_slurm", {"setup": "module load"}, "hydra.launcher.setup='module load': must be"),
        ("submitit_slurm", {"partion": "a"}, "did you mean hydra.launcher.partition?"),
        ("ray", {"gpus_per_job": True}, "hydra.launcher.gpus_per_job=true: must be"),
    ],
)
def test_a_bad_key_is_one_line(
    name: str, changes: dict[str, Any], line: str, tmp_path: Path
) -> None:
    pytest.importorskip("ray" if name == "ray" else "submitit")
    with pytest.raises(ConfigError, match=re.escape(line)) as error:
        make_launcher(option(name, **changes), 2, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "extra"), [("submitit_slurm", "slurm"), ("ray", "ray")])
def test_a_missing_extra(
    name: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "find_spec", lambda module: None)
    words = f'hydra/launcher={name} needs .*: pip install "eqprop\\[{extra}\\]"'
    with pytest.raises(ConfigError, match=words):
        make_launcher(option(name), 2, tmp_path)


def test_a_launcher_of_hydra_s(tmp_path: Path) -> None:
    """Its own, which is always there, stands for local processes; published ones are refused."""
    assert type(make_launcher(BASIC, 2, tmp_path)).__name__ == "LocalLauncher"
    published = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
    for target in (published, None):
        with pytest.raises(ConfigError, match=r"hydra\.launcher"):
            make_launcher({"_target_": target, "n_jobs": -1}, 2, tmp_path)


class Foreign:
    """Somebody else's."""

    def __init__(self, capacity: int, folder: Path, nodes: int = 1) -> None:
        self.capacity, self.nodes = capacity * nodes, nodes


def test_somebody_else_s(tmp_path: Path) -> None:
    target = f"{__name__}.Foreign"
    assert make_launcher({"_target_": target, "nodes": 3}, 2, tmp_path).capacity == 6
    for key, value in (("node", 3), ("nodes", "three")):
        with pytest.raises(ConfigError, match=rf"hydra\.launcher\.{key}"):
            make_launcher({"_target_": target, key: value}, 2, tmp_path)


def test_threads_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(start, "processors", lambda: 7)
    assert [threads_of(BASIC, jobs) for jobs in (1, 2, 7, 20)] == [None, 3, 1, 1]
    assert threads_of(option("submitit_slurm", cpus_per_task=5), 2) == 5
    assert threads_of(option("ray", cpus_per_job=0.5), 2) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads_of(BASIC, 2) == 2


def test_processors_are_those_of_this_process() -> None:
    assert hardware.processors() == len(os.sched_getaffinity(0))


def made(plan: Plan, **changes: Any) -> Job:
    """The first job of a plan."""
    plan = Plan(**{**vars(plan), **changes})
    run = Run(0, None, "a=b, c")
    return make_job(plan, Point(None, next(plan.cells()), [run]), run)  # type: ignore[arg-type]


def test_the_command_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # which the command itself sets
    asked = planned(tmp_path / "it's, 1", "seed=1", "optimizer.lr=1e-3,1e-2", "hydra.verbose=true")
    one = made(asked, program=("python", "train.py"), threads=3)
    group = f"{tmp_path.name}-it's, 1"
    assert one.arguments() == [
        *("python", "train.py", "seed=1", "optimizer.lr=0.001", "tracking=none"),
        *("hydra.verbose=true", "hydra.job.num=0", "hydra.job.id=0"),
        *(f'tracking.group="{group}"', "device.threads=3"),
        f'hydra.run.dir="{tmp_path}/it\'s, 1/a=b, c"',
    ]
    assert (one.env["HYDRA_FULL_ERROR"], one.env["OMP_NUM_THREADS"]) == ("0", "3")
    one.folder.mkdir(parents=True)
    (one.folder / "status.json").write_text("{}")
    assert one.arguments()[-1] == "resume=auto"
    chosen = planned(tmp_path, "tracking.group=mine", "device.threads=2", "optimizer.lr=1,2")
    words = made(chosen, threads=3).command
    assert [word for word in words if "group" in word or "threads" in word] == [
        *("tracking.group=mine", "device.threads=2"),
    ]
    monkeypatch.setenv(TRACEBACK, "1")
    assert made(asked).env["HYDRA_FULL_ERROR"] == "1"


def test_a_job_has_the_sources_of_the_command(tmp_path: Path) -> None:
    assert plugin.sources(Composer().load([], RunMode.MULTIRUN)) == ("config", None, None)
    (tmp_path / "mine.yaml").write_text("defaults: [config, _self_]\nseed: 3\n")
    mine = Composer("mine", None, str(tmp_path)).load([], RunMode.MULTIRUN)
    assert plugin.sources(mine) == ("mine", None, str(tmp_path))


@pytest.mark.parametrize(("timeout", "grace"), [(None, 30), (1, 5), (12, 12), (3600, 30)])
def test_the_time_to_save(timeout: float | None, grace: float, tmp_path: Path) -> None:
    words = [] if timeout is None else [f"sweep.job_timeout={timeout}"]
    assert made(planned(tmp_path, "optimizer.lr=1,2", *words)).grace == grace
