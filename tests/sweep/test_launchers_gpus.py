"""The GPUs of a machine are divided among its jobs; none is needed here, they are only counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.types import RunMode
from jobs import drive, hanging, job, wait

from eqprop.config.compose import Composer
from eqprop.sweep import start
from eqprop.sweep.process import VISIBLE, LocalLauncher
from eqprop.sweep.start import gpus_for, run_sweep


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine of two GPUs, all of them visible."""
    monkeypatch.setattr(start, "gpu_count", lambda: 2)
    monkeypatch.delenv(VISIBLE, raising=False)
    return monkeypatch


def test_what_there_is_to_divide(two: pytest.MonkeyPatch) -> None:
    assert gpus_for("auto", 2, []) == gpus_for("cuda", 3, ["device=cuda"]) == ("0", "1")
    assert gpus_for("cpu", 2, []) == gpus_for("auto", 1, []) == ()
    assert gpus_for("auto", 2, ["device.index=1"]) == gpus_for("auto", 2, ["device.index"]) == ()
    two.setattr(start, "gpu_count", lambda: 1)
    assert gpus_for("auto", 2, []) == ()


def test_what_is_visible_is_respected(two: pytest.MonkeyPatch) -> None:
    two.setenv(VISIBLE, "3, GPU-5a")
    assert gpus_for("auto", 2, []) == ("3", "GPU-5a")
    two.setattr(start, "gpu_count", lambda: 0)
    assert gpus_for("auto", 2, []) == ()


def test_a_sweep_asks_for_it(
    two: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[tuple[str, ...]] = []

    class Noting(LocalLauncher):
        def __init__(self, capacity: int, folder: Path, gpus: tuple[str, ...] = ()) -> None:
            given.append(gpus)
            raise KeyboardInterrupt

    two.setattr(start, "LocalLauncher", Noting)
    composer = Composer()
    for words in ([], ["device=cpu"], ["device.index=0,1"]):
        more = ("sweep.jobs=2", "seed=1,2", f"hydra.sweep.dir={tmp_path}")
        master = composer.load([*words, *more], RunMode.MULTIRUN)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(composer, master, ())
    assert given == [("0", "1"), (), ()]


def test_each_job_sees_one(tmp_path: Path) -> None:
    made = LocalLauncher(2, tmp_path, ("3", "7"))
    jobs = [job(tmp_path, number, "fine", "wait=0.5") for number in range(2)]
    drive(made, jobs)
    assert sorted((one.folder / "sees").read_text() for one in jobs) == ["3", "7"]


def test_the_one_that_is_free(tmp_path: Path) -> None:
    """Not the next in turn: jobs do not end in the order of their start."""
    made = LocalLauncher(2, tmp_path, ("0", "1"))
    first = hanging(made, job(tmp_path, 0, "hang", timeout=None))
    for number in (1, 2, 3):
        one = job(tmp_path, number, "fine")
        wait(made.start(one))
        assert (one.folder / "sees").read_text() == "1"
    first.stop()
    wait(first)


def test_nothing_changes_where_nothing_is_gpus_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE, "5")
    one = job(tmp_path, 0, "fine")
    assert wait(LocalLauncher(1, tmp_path).start(one)).state == "done"
    assert (one.folder / "sees").read_text() == "5"
