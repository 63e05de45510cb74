"""The GPUs of a machine are divided among its jobs; none is needed here, they are only counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.types import RunMode
from jobs import drive, hanging, job, program, wait
from running import ROOT

from eqprop.config.composer import Composer
from eqprop.sweep import gpus, plan, run
from eqprop.sweep.gpus import divided
from eqprop.sweep.joblib import JoblibLauncher
from eqprop.sweep.local import LocalLauncher
from eqprop.sweep.order import Terms
from eqprop.sweep.submitit import SubmititLocalLauncher

OURS = ("hydra/launcher=joblib", "hydra/launcher=submitit_local", "hydra/launcher=basic")


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine of two GPUs, all of them visible."""
    monkeypatch.setattr(gpus, "gpu_count", lambda: 2)
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    return monkeypatch


def test_what_there_is_to_divide(two: pytest.MonkeyPatch) -> None:
    assert divided("auto", 2, []) == divided("cuda", 3, ["device=cuda"]) == ("0", "1")
    assert divided("cpu", 2, []) == divided("auto", 1, []) == ()
    assert divided("auto", 2, ["device.index=1"]) == divided("auto", 2, ["device.index"]) == ()
    two.setattr(gpus, "gpu_count", lambda: 1)
    assert divided("auto", 2, []) == ()


def test_what_is_visible_is_respected(two: pytest.MonkeyPatch) -> None:
    two.setenv(gpus.VISIBLE, "3, GPU-5a")
    assert divided("auto", 2, []) == ("3", "GPU-5a")
    two.setattr(gpus, "gpu_count", lambda: 0)
    assert divided("auto", 2, []) == ()


@pytest.mark.parametrize("words", [*([launcher] for launcher in OURS), ["device=cpu"]])
def test_a_sweep_asks_for_it(words: list[str], two: pytest.MonkeyPatch, tmp_path: Path) -> None:
    composer = Composer()
    more = ("sweep.jobs=2", "seed=1,2", f"hydra.sweep.dir={tmp_path}")
    master = composer.load([*words, *more], RunMode.MULTIRUN)
    made: Any = run._launcher(plan.read(composer, master), master)
    assert made.terms.gpus == (() if words == ["device=cpu"] else ("0", "1"))


@pytest.mark.parametrize("kind", [LocalLauncher, JoblibLauncher, SubmititLocalLauncher])
def test_each_job_sees_one(kind: Any, tmp_path: Path, two: pytest.MonkeyPatch) -> None:
    terms = Terms(program(tmp_path), grace=5, gpus=("3", "7"))
    made = kind(terms, 2) if kind is LocalLauncher else kind(terms, 2, tmp_path)
    jobs = [job(tmp_path, number, "fine", "wait=0.5") for number in range(2)]
    drive(made, jobs)
    made.close()
    assert sorted((one.folder / "sees").read_text() for one in jobs) == ["3", "7"]


def test_the_one_that_is_free(tmp_path: Path) -> None:
    """Not the next in turn: jobs do not end in the order of their start."""
    made = LocalLauncher(Terms(program(tmp_path), grace=5, gpus=("0", "1")), 2)
    first = hanging(made, job(tmp_path, 0, "hang"))
    for number in (1, 2, 3):
        one = job(tmp_path, number, "fine")
        wait(made.start(one))
        assert (one.folder / "sees").read_text() == "1"
    first.stop()
    wait(first)


def test_nothing_changes_where_nothing_is_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(gpus.VISIBLE, "5")
    for number, kind in enumerate((LocalLauncher, SubmititLocalLauncher)):
        made: Any = kind(Terms(program(tmp_path)), 1, *([tmp_path] if number else []))
        one = job(tmp_path, number, "fine")
        assert wait(made.start(one)).state == "done"
        made.close()
        assert (one.folder / "sees").read_text() == "5"
