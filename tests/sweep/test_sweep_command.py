"""Sweeps by the command, as a person starts, stops and kills them."""

from __future__ import annotations

import os
import re
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.types import RunMode
from running import QUICK, Process, Ran, rows, start, status, train, untimed
from searching import runs, trials

from eqprop.config.compose import Composer
from eqprop.sweep import plan

TPE = ("-m", "sweep=tpe", *QUICK, "sweep.n_trials=4")


def killed(cwd: Path, when: Callable[[], bool], *words: str, number: int = signal.SIGKILL) -> int:
    """Start a command, send it a signal at a moment, and wait for its end."""
    with open(os.devnull, "r+b") as nothing:
        process: Process = start(*words, cwd=cwd)(nothing, nothing, nothing)
        end = time.monotonic() + 60
        while not when() and time.monotonic() < end:
            time.sleep(0.02)
        assert when()
        process.send(number)
        return process.wait()


@pytest.fixture(scope="module")
def survivor(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """A search whose sweeper was killed twice: with its first jobs running, and right after one."""
    cwd = tmp_path_factory.mktemp("killed")

    def folder() -> Path:
        found = [*cwd.glob("outputs/multirun/tpe-*")]
        return found[0] if found else cwd

    def done() -> bool:
        paths = folder().glob("*/status.json")
        return any(status(path.parent)["state"] == "done" for path in paths)

    def begun() -> bool:
        return len([*folder().glob("*/console.log")]) == 2

    killed(cwd, begun, *TPE, "sweep.jobs=2")
    killed(cwd, done, *TPE, "sweep.jobs=2")
    return folder(), train(*TPE, "sweep.jobs=2", cwd=cwd).succeeded()


def test_killed_twice_it_completes_its_trials_and_none_twice(survivor: tuple[Path, Ran]) -> None:
    folder, ran = survivor
    found = trials(folder)
    assert [trial.state.name for trial in found] == ["COMPLETE"] * 4
    assert len({str(trial.params) for trial in found}) == 4
    assert len(ran.folders) == 4
    for trial in found:
        (run,) = trial.user_attrs["runs"]
        name = run["folder"]
        recorded = status(folder / name)
        assert (recorded["state"], recorded["objective"]) == ("done", trial.value)
        epochs = [row["epoch"] for row in rows(folder / name) if "time/train_s" in row]
        assert epochs == [1]  # the one that was running has not been doubled
    assert "4 done" in ran.out
    assert f"best {max(trial.value for trial in found):.4f}" in ran.out


def test_finished_it_starts_nothing(survivor: tuple[Path, Ran]) -> None:
    folder, ran = survivor
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = train(*TPE, cwd=ran.cwd).succeeded()
    assert "started" not in again.out
    assert again.out.splitlines() == ran.out.splitlines()[-2:]
    assert all(
        path.stat().st_mtime_ns == then for path, then in before.items() if path.name != ".lock"
    )


def test_a_job_is_the_run_of_its_overrides(survivor: tuple[Path, Ran], tmp_path: Path) -> None:
    folder, _ = survivor
    trial = trials(folder)[2]
    single = train(*QUICK, *trial.user_attrs["overrides"], cwd=tmp_path).succeeded()
    assert untimed(single.rows) == untimed(rows(folder / trial.user_attrs["runs"][0]["folder"]))


def test_the_jobs_of_a_killed_grid_save_and_are_resumed(tmp_path: Path) -> None:
    """Nobody asks them but the kernel; no epoch is lost or doubled."""
    words = ("-m", *QUICK, "trainer.epochs=150", "seed=1,2", "hydra.sweep.dir=s", "sweep.jobs=2")

    def found() -> list[dict[str, Any]]:
        return [status(path.parent) for path in (tmp_path / "s").glob("*/status.json")]

    def saved() -> bool:
        return len({path.parent for path in tmp_path.glob("s/*/checkpoints/*.pt")}) == 2

    killed(tmp_path, saved, *words)
    end = time.monotonic() + 60
    while {one["state"] for one in found()} != {"interrupted"} and time.monotonic() < end:
        time.sleep(0.05)
    assert [one["reason"] for one in found()] == ["interrupted by SIGTERM"] * 2
    ran = train(*words, cwd=tmp_path).succeeded()
    assert "2 done" in ran.out.splitlines()[-1]
    for one, path in zip(found(), (tmp_path / "s").glob("*/status.json"), strict=True):
        assert (one["state"], len(one["resumed"])) == ("done", 1)
        epochs = [row["epoch"] for row in rows(path.parent) if "time/train_s" in row]
        assert epochs == list(range(1, 151))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_sweep_when_its_jobs_have_saved(
    number: int, code: int, tmp_path: Path
) -> None:
    words = ("-m", *QUICK, "trainer.epochs=400", "seed=1,2", "hydra.sweep.dir=s", "sweep.jobs=2")

    def running() -> bool:
        return len([*tmp_path.glob("s/*/metrics.jsonl")]) == 2

    assert killed(tmp_path, running, *words, number=number) == code
    folders = [path.parent for path in (tmp_path / "s").glob("*/status.json")]
    assert {status(folder)["state"] for folder in folders} == {"interrupted"}
    assert [one["state"] for one in runs(tmp_path / "s")] == ["interrupted"] * 2
    assert all([*(folder / "checkpoints").glob("*.pt")] for folder in folders)


def test_one_clear_line(tmp_path: Path) -> None:
    """Exit status 2, and nothing is made."""
    search = ("-m", "sweep=tpe")
    for words, named in {
        ("sweep=tpe",): "add -m",
        ("-m", "optimizer.lr=interval(1e-3,1e-2)"): "a grid needs values",
        (*search, "seed=1,2"): "sweep.repeats",
        ("-m", "seed=1,2", "sweep.repeats=2"): "sweep.repeats",
        (*search, "sweep.n_trials=0"): "sweep.n_trials=0: must be",
        (*search, "sweep.n_trials=null"): "sweep.n_trials=null",
        (*search, "sweep.job_timeout=0"): "sweep.job_timeout=0",
        (*search, "sweep.n_trails=3"): "did you mean sweep.n_trials?",
        (*search, "sweep.pruner=medain"): "did you mean median?",
        (*search, "optimizer.lr=interval(2,1)"): "must be less than",
        (*search, "optimizer.lr=tag(lgo,interval(1,2))"): "did you mean log?",
        (*search, "estimator.beta=tag(log,interval(-1,1))"): "must be > 0",
        ("-m", "sweep=lr_beta", "sweep.pruner=median"): "sweep.pruner=median: a grid",
        ("-m", "sweep.jobs=1,2"): "the sweep as a whole",
    }.items():
        ran = train(*words, *QUICK, cwd=tmp_path)
        assert ran.code == 2, words
        assert named in ran.error, ran.error
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_the_searchs() -> None:
    """The same for the same search however it is run; another one for another search."""

    def folder(*words: str) -> str:
        composer = Composer()
        return plan.read(composer, composer.load(words, RunMode.MULTIRUN)).folder.name

    same = folder("sweep=tpe", "trainer.epochs=3", "seed=1")
    assert re.fullmatch(r"tpe-[0-9a-f]{6}", same)
    free = ("sweep.jobs=2", "sweep.n_trials=9", "tracking=none", "sweep.job_timeout=9")
    assert folder("seed=1", "trainer.epochs=3", "sweep=tpe", *free, "paths.data=d") == same
    for words in ("trainer.epochs=4", "seed=2", "sweep.repeats=2", "optimizer.lr=interval(1,2)"):
        assert folder("sweep=tpe", "trainer.epochs=3", "seed=1", words) != same
    assert folder("sweep=lr_beta").startswith("lr_beta-")


@pytest.mark.parametrize("option", ["lr_beta", "tpe"])
def test_the_ready_sweeps_run(option: str, tmp_path: Path) -> None:
    """On the default data and model, each its first point."""
    small = ("dataset.limit=200", "trainer.epochs=1", "tracking=none", "sweep.n_trials=1")
    ran = train("-m", f"sweep={option}", *small, cwd=tmp_path).succeeded()
    assert ran.folder.parent.name.startswith(f"{option}-")
    assert ran.folder.name.startswith("0-gaussian-mnist5k-")
    assert ran.status["state"] == "done"


def test_what_it_prints_at_its_start_goes_on_with_a_grid_after_a_kill(tmp_path: Path) -> None:
    """Its folder is new with each command, so that only the printed one finds what is done."""
    words = ("-m", *QUICK, "seed=1,2,3")

    def done() -> list[Path]:
        found = tmp_path.glob("outputs/multirun/*/*/*/status.json")
        return [path for path in found if status(path.parent)["state"] == "done"]

    with open(tmp_path / "out", "w+b") as out, open(os.devnull, "r+b") as nothing:
        process: Process = start(*words, cwd=tmp_path)(nothing, out, nothing)
        end = time.monotonic() + 60
        while not done() and time.monotonic() < end:
            time.sleep(0.02)
        process.send(signal.SIGKILL)
        process.wait()
    kept = {path: path.stat().st_mtime_ns for path in done()}
    assert 1 <= len(kept) < 3
    (line,) = re.findall("go on with: (.*)", (tmp_path / "out").read_text())
    program, script, *again = shlex.split(line)
    assert (program, Path(script).name) == ("python", "train.py")
    ran = train(*again, cwd=tmp_path).succeeded()
    assert "3 done" in ran.out.splitlines()[-1]
    assert len(done()) == 3
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())
