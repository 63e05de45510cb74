"""Which launcher ``hydra.launcher`` makes, and what a person sees who has chosen badly."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from running import SCRIPT

from eqprop.cli.failures import TRACEBACK
from eqprop.config.compose import conf_dir
from eqprop.run import hardware
from eqprop.run.errors import ConfigError
from eqprop.sweep import launchers
from eqprop.sweep.job import Job
from eqprop.sweep.launchers import KNOWN, make_launcher
from eqprop.sweep.order import Terms, this_program

OPTIONS = sorted((conf_dir() / "hydra" / "launcher").glob("*.yaml"))


def option(name: str, **changes: Any) -> dict[str, Any]:
    """The keys of a launcher's file; the default, which is Hydra's own name, needs none."""
    if name == "basic":
        return {"_target_": launchers.LOCAL, **changes}
    found: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"hydra/launcher/{name}.yaml"))
    return {**found, **changes}


def made(options: dict[str, Any], folder: Path, jobs: int = 2, **more: Any) -> Any:
    given = {"job_timeout": None, "threads": None, "group": None, **more}
    return make_launcher(options, jobs, folder=folder, **given)


def one(folder: Path, *overrides: str) -> Job:
    return Job(0, overrides, folder / "a=b, c", "")


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: path.stem)
def test_a_file_holds_every_key_and_its_default(path: Path) -> None:
    keys = option(path.stem)
    kind = KNOWN[keys["_target_"]]
    assert set(keys) == {field.alias or name for name, field in kind.model_fields.items()}
    for name, field in kind.model_fields.items():
        if not field.alias:
            assert keys[name] == field.default, name


def test_the_names() -> None:
    names = ["joblib", "ray", "submitit_local", "submitit_slurm"]
    assert [path.stem for path in OPTIONS] == names


@pytest.mark.parametrize(
    ("name", "changes", "line"),
    [
        ("joblib", {"idle": -1}, "hydra.launcher.idle=-1: must be a finite number > 0"),
        ("joblib", {"idel": 1}, "did you mean hydra.launcher.idle?"),
        ("submitit_local", {"timeout_min": "abc"}, "timeout_min='abc': must be null or a whole"),
        ("submitit_slurm", {"cpus_per_task": 0}, "cpus_per_task=0: must be a whole number >= 1"),
        ("submitit_slurm", {"setup": "module load"}, "hydra.launcher.setup='module load': must be"),
        ("ray", {"gpus_per_job": True}, "hydra.launcher.gpus_per_job=true: must be"),
    ],
)
def test_a_bad_key_is_one_line(
    name: str, changes: dict[str, Any], line: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=re.escape(line)) as error:
        made(option(name, **changes), tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("joblib", "joblib"),
        ("submitit_local", "slurm"),
        ("submitit_slurm", "slurm"),
        ("ray", "ray"),
    ],
)
def test_a_missing_extra(
    name: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launchers, "find_spec", lambda module: None)
    words = f'hydra/launcher={name} needs .*: pip install "eqprop\\[{extra}\\]"'
    with pytest.raises(ConfigError, match=words):
        made(option(name), tmp_path)
    monkeypatch.undo()
    assert launchers.find_spec is importlib.util.find_spec


def test_a_launcher_of_hydra_s(tmp_path: Path) -> None:
    """Its own, which is always there, stands for ours; published ones are refused."""
    basic = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
    assert type(made({"_target_": basic}, tmp_path)).__name__ == "LocalLauncher"
    published = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
    for target in (published, None):
        with pytest.raises(ConfigError, match="choose hydra/launcher=basic"):
            made({"_target_": target, "n_jobs": -1}, tmp_path)


class Foreign:
    """Somebody else's."""

    def __init__(self, terms: Terms, capacity: int, folder: Path, nodes: int = 1) -> None:
        self.capacity, self.nodes = capacity * nodes, nodes


def test_somebody_else_s(tmp_path: Path) -> None:
    target = f"{__name__}.Foreign"
    assert made({"_target_": target, "nodes": 3}, tmp_path).capacity == 6
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.node"):
        made({"_target_": target, "node": 3}, tmp_path)


def words_of(launcher: Any, job: Job) -> list[str]:
    return list(launcher.terms.order(job).words())


def test_threads_are_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(launchers, "processors", lambda: 7)
    for jobs, threads in ((2, 3), (7, 1), (20, 1)):
        launcher = made(option("basic"), tmp_path, jobs)
        order = launcher.terms.order(one(tmp_path))
        assert f"device.threads={threads}" in order.words()
        assert order.env["OMP_NUM_THREADS"] == str(threads)
    alone = made(option("basic"), tmp_path, 1).terms.order(one(tmp_path))
    assert not any(word.startswith("device.threads") for word in alone.words())
    assert "OMP_NUM_THREADS" not in alone.env
    chosen = made(option("basic"), tmp_path, 2, threads=5)
    assert not any(word.startswith("device.threads") for word in words_of(chosen, one(tmp_path)))
    own = words_of(made(option("basic"), tmp_path, 2), one(tmp_path, "device.threads=4"))
    assert [word for word in own if word.startswith("device.threads")] == ["device.threads=4"]


def test_fewer_threads_where_the_environment_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launchers, "processors", lambda: 64)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert "device.threads=4" in words_of(made(option("basic"), tmp_path, 2), one(tmp_path))


def test_processors_are_those_of_this_process() -> None:
    import os

    assert hardware.processors() == len(os.sched_getaffinity(0))


def test_the_command_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # which the command itself sets
    terms = Terms(("python", "train.py"), group="lr's, 1")
    job = one(tmp_path, "seed=1")
    order = terms.order(job)
    folder = f'hydra.run.dir="{tmp_path}/a=b, c"'
    assert order.words() == ["python", "train.py", "seed=1", 'tracking.group="lr\'s, 1"', folder]
    assert order.environment()["HYDRA_FULL_ERROR"] == "0"
    job.folder.mkdir()
    (job.folder / "status.json").write_text("{}")
    assert order.words()[-1] == "resume=auto"
    named = terms.order(one(tmp_path, "tracking.group=mine")).words()
    assert sum(word.startswith("tracking.group") for word in named) == 1
    monkeypatch.setenv(TRACEBACK, "1")
    assert terms.order(job).environment()["HYDRA_FULL_ERROR"] == "1"


def test_this_program() -> None:
    argv = [str(SCRIPT), "-m", "--config-dir", "lab/conf", "seed=1,2", "--config-name=mine"]
    program = this_program(argv)
    assert program[1:] == (str(SCRIPT), "--config-name=mine", "--config-dir=lab/conf")
    assert this_program(["-c"])[1] == "-c"


@pytest.mark.parametrize(("timeout", "grace"), [(None, 30), (1, 5), (12, 12), (3600, 30)])
def test_the_time_to_save(timeout: float | None, grace: float) -> None:
    assert Terms(("x",), timeout=timeout).grace_seconds == grace
