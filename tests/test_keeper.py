"""When a run saves, what stays of it, and what is never saved."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import training

from eqprop.run import checkpoint
from eqprop.run.errors import RunError
from eqprop.run.signals import Stop, Stopped
from eqprop.tracking import JsonlTracker, RunInfo
from eqprop.training.keeper import Checkpoints


def keeper(folder: Path, **changes: Any) -> Checkpoints:
    return Checkpoints(folder, {"config": {}}, Stop(), lambda: 0, **changes)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_which_files_there_are(tmp_path: Path) -> None:
    run = training(epochs=5, log_every=100)
    run.keeper = keeper(tmp_path, keep=2)
    run.fit()
    expected = ["best.pt", "epoch-4.pt", "epoch-5.pt", "last.previous.pt", "last.pt"]
    assert names(tmp_path) == expected
    last = checkpoint.read(tmp_path / "last.pt")
    assert (last.meta["epoch"], last.meta["batches"], last.meta["step"]) == (6, 0, 15)
    assert (tmp_path / "epoch-5.pt").read_bytes() == (tmp_path / "last.pt").read_bytes()


def test_best_is_the_weights_of_the_best_epoch(tmp_path: Path) -> None:
    run = training(epochs=6, log_every=100)
    run.keeper = keeper(tmp_path, every=4)
    seen: dict[int, Any] = {}
    accuracies: dict[int, float] = {}
    after = run.keeper.after_epoch

    def noting(it: Any, improved: bool) -> None:
        seen[it.step] = {k: v.clone() for k, v in it.model.state_dict().items()}
        accuracies[it.step] = it.last["accuracy/validation"]
        after(it, improved)

    run.keeper.after_epoch = noting  # type: ignore[method-assign]
    run.fit()
    best = checkpoint.read(tmp_path / "best.pt")
    step = max(accuracies, key=lambda s: (accuracies[s], -s))
    assert best.meta["step"] == step
    for name, tensor in best.tensors()["model"].items():
        assert torch.equal(tensor, seen[step][name])


def saves(run: Any) -> list[int]:
    steps: list[int] = []
    save = run.keeper.save
    run.keeper.save = lambda it, final=False: (steps.append(it.step), save(it, final))[1]
    run.fit()
    return steps


@pytest.mark.parametrize(
    ("how", "steps"),
    [
        ({"every": 1}, [3, 6, 9, 12]),
        ({"every": 3}, [9, 12]),
        ({"every": 9, "every_steps": 5}, [5, 10, 12]),
    ],
)
def test_when_it_saves(how: dict[str, Any], steps: list[int], tmp_path: Path) -> None:
    run = training(epochs=4, log_every=100)
    run.keeper = keeper(tmp_path, **how)
    assert saves(run) == steps


def test_saving_keeps_to_its_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    run = training(epochs=20, log_every=100)
    run.keeper = kept = keeper(tmp_path, share=0.1)
    write = kept._write

    def slow(it: Any) -> None:
        now[0] += 1.0
        write(it)

    def tick(samples: int) -> None:
        now[0] += 1.0  # three steps of a second make an epoch

    kept._write, run.advance = slow, tick  # type: ignore[method-assign]
    assert saves(run) == [3, 15, 27, 39, 51, 60]  # the first, every 10 s or more, the last


def test_what_cannot_be_loaded_is_refused_when_it_is_first_saved(tmp_path: Path) -> None:
    run = training(epochs=1)
    run.optimizer.state[next(run.model.parameters())]["mine"] = Path("x")
    run.keeper = keeper(tmp_path)
    with pytest.raises(RunError, match="cannot be saved so that it loads again"):
        run.fit()
    assert names(tmp_path) == []


def test_what_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    run = training(epochs=1)
    run.optimizer = torch.optim.Adam(run.model.parameters(), lr=1e-3)
    run.fit()
    run.keeper = kept = keeper(tmp_path)
    values = run.optimizer.state[run.model.W[0].bias]
    values["exp_avg_sq"][0] = float("inf")
    with pytest.raises(RunError, match=r"the optimizer's exp_avg_sq of W.0.bias is not finite"):
        kept.save(run)
    assert names(tmp_path) == []


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    run = training(epochs=3, log_every=100)
    run.keeper = keeper(tmp_path, keep=1)
    run.fit()
    assert (tmp_path / "epoch-3.pt").read_bytes() == (tmp_path / "last.pt").read_bytes()


def test_no_room_for_the_kept_epochs_costs_the_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", fail)
    monkeypatch.setattr(shutil, "copyfile", fail)
    run = training(epochs=2, log_every=100)
    run.keeper = keeper(tmp_path, keep=1)
    run.fit()
    assert checkpoint.read(tmp_path / "last.pt").meta["epoch"] == 3


def test_the_rows_are_on_the_disk_before_the_checkpoint_that_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = JsonlTracker()
    tracker.start(RunInfo("id", "name", "project", tmp_path, tmp_path))
    calls: list[str] = []
    fsync, write = os.fsync, checkpoint.write

    def flushing(descriptor: int) -> None:
        calls.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def writing(path: Path, meta: Any, state: Any) -> None:
        calls.append(path.name)
        write(path, meta, state)

    run = training(epochs=1, log_every=1)
    run.record = tracker.log
    run.keeper = kept = keeper(tmp_path)
    kept.rows = tracker.sync
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", flushing)
        patched.setattr(checkpoint, "write", writing)
        run.fit()
    tracker.finish({}, "done")
    assert calls[:2] == ["metrics.jsonl", "best.pt"]
    last = checkpoint.read(tmp_path / "last.pt")
    assert last.meta["metrics_bytes"] == (tmp_path / "metrics.jsonl").stat().st_size


def test_a_signal_after_the_last_step_of_an_epoch_waits_for_no_other(tmp_path: Path) -> None:
    run = training(epochs=3, log_every=100)
    run.keeper = kept = keeper(tmp_path)

    def hear(row: Any) -> None:
        if "time/train_s" in row:  # an epoch's row: it has been evaluated
            kept.stop.requested = signal.SIGTERM

    run.record = hear
    with pytest.raises(Stopped):
        run.fit()
    assert run.step == 3
    assert checkpoint.read(tmp_path / "last.pt").meta["step"] == 3


def test_a_run_that_is_told_to_stop_on_a_full_disk_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = training(epochs=3, log_every=100)
    run.keeper = kept = keeper(tmp_path)
    kept.stop.requested = signal.SIGTERM
    monkeypatch.setattr(checkpoint, "write", full)
    with pytest.raises(Stopped):
        run.fit()
    assert "No space left on device" in caplog.text
