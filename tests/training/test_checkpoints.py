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
from toys import adam, training

from eqprop.run import checkpoint
from eqprop.run.checkpoint import CheckpointError
from eqprop.run.errors import RunError
from eqprop.run.signals import Stop, Stopped
from eqprop.tracking import LocalFiles, RunInfo
from eqprop.training.callback import Callback
from eqprop.training.checkpoints import Checkpoints
from eqprop.training.divergence_guard import DivergenceGuard
from eqprop.training.session import Row, Session


class Kept(Checkpoints):
    """Notes at which steps it saves."""

    def __init__(self, folder: Path, rows: Any = lambda: 0, **changes: Any) -> None:
        super().__init__(folder, {"config": {}}, Stop(), rows, DivergenceGuard(), **changes)
        self.steps: list[int] = []

    def save(self, session: Session, final: bool = False) -> bool:
        self.steps.append(session.step)
        return super().save(session, final)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_which_files_there_are(tmp_path: Path) -> None:
    training("gaussian", Kept(tmp_path, keep=2), epochs=5, log_every=100).fit()
    expected = ["best.pt", "epoch-4.pt", "epoch-5.pt", "last.previous.pt", "last.pt"]
    assert names(tmp_path) == expected
    last = checkpoint.read(tmp_path / "last.pt")
    assert (last.meta["epoch"], last.meta["batches"], last.meta["step"]) == (6, 0, 15)
    assert (tmp_path / "epoch-5.pt").read_bytes() == (tmp_path / "last.pt").read_bytes()


def test_best_is_the_weights_of_the_best_epoch(tmp_path: Path) -> None:
    seen: dict[int, Any] = {}
    accuracies: dict[int, float] = {}

    class Noting(Callback):
        def on_epoch(self, session: Session, row: Row, improved: bool) -> None:
            weights = session.network.state_dict()
            seen[session.step] = {name: w.clone() for name, w in weights.items()}
            accuracies[session.step] = row["accuracy/validation"]

    training("gaussian", Kept(tmp_path, every=4), Noting(), epochs=6, log_every=100).fit()
    best = checkpoint.read(tmp_path / "best.pt")
    step = max(accuracies, key=lambda s: (accuracies[s], -s))
    assert best.meta["step"] == step
    for name, tensor in best.tensors()["model"].items():
        assert torch.equal(tensor, seen[step][name])


@pytest.mark.parametrize(
    ("how", "steps"),
    [
        ({"every": 1}, [3, 6, 9, 12]),
        ({"every": 3}, [9, 12]),
        ({"every": 9, "every_steps": 5}, [5, 10, 12]),
    ],
)
def test_when_it_saves(how: dict[str, Any], steps: list[int], tmp_path: Path) -> None:
    kept = Kept(tmp_path, **how)
    training("gaussian", kept, epochs=4, log_every=100).fit()
    assert kept.steps == steps


def test_saving_keeps_to_its_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    class Slow(Kept):
        def _write(self, session: Session) -> None:
            now[0] += 1.0
            super()._write(session)

    class Ticking(Callback):
        def on_step(self, session: Session, samples: int) -> None:
            now[0] += 1.0  # three steps of a second make an epoch

    kept = Slow(tmp_path, share=0.1)
    training("gaussian", Ticking(), kept, epochs=20, log_every=100).fit()
    assert kept.steps == [3, 15, 27, 39, 51, 60]  # the first, every 10 s or more, the last


def test_what_cannot_be_loaded_is_refused_when_it_is_first_saved(tmp_path: Path) -> None:
    run = training("gaussian", Kept(tmp_path), epochs=2)
    run.session.optimizer.state[run.session.network.W[0].bias]["mine"] = Path("x")
    with pytest.raises(CheckpointError, match="holds more than numbers and tensors"):
        run.fit()
    assert run.session.step == 3


def test_what_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    run = training(epochs=1, optimizer=adam)
    run.fit()
    values = run.session.optimizer.state[run.session.network.W[0].bias]
    values["exp_avg_sq"][0] = float("inf")
    with pytest.raises(RunError, match=r"the optimizer's exp_avg_sq of W.0.bias is not finite"):
        Kept(tmp_path).save(run.session)
    assert names(tmp_path) == []


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    training("gaussian", Kept(tmp_path, keep=1), epochs=3, log_every=100).fit()
    assert (tmp_path / "epoch-3.pt").read_bytes() == (tmp_path / "last.pt").read_bytes()


def test_no_room_for_the_kept_epochs_costs_the_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", fail)
    monkeypatch.setattr(shutil, "copyfile", fail)
    training("gaussian", Kept(tmp_path, keep=1), epochs=2, log_every=100).fit()
    assert checkpoint.read(tmp_path / "last.pt").meta["epoch"] == 3


def test_the_rows_are_on_the_disk_before_the_checkpoint_that_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = LocalFiles()
    tracker.start(RunInfo("id", "name", "project", tmp_path, tmp_path))
    calls: list[str] = []
    fsync, write = os.fsync, checkpoint.write

    def flushing(descriptor: int) -> None:
        calls.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def writing(path: Path, meta: Any, state: Any) -> None:
        calls.append(path.name)
        write(path, meta, state)

    kept = Kept(tmp_path, tracker.sync)
    run = training("gaussian", kept, epochs=1, record=tracker.log)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", flushing)
        patched.setattr(checkpoint, "write", writing)
        run.fit()
    tracker.finish({}, "done")
    assert calls[:2] == ["metrics.jsonl", "best.pt"]
    last = checkpoint.read(tmp_path / "last.pt")
    assert last.meta["metrics_bytes"] == (tmp_path / "metrics.jsonl").stat().st_size


def test_a_signal_after_the_last_step_of_an_epoch_waits_for_no_other(tmp_path: Path) -> None:
    kept = Kept(tmp_path)

    def hear(row: Any) -> None:
        if "time/train_s" in row:  # an epoch's row: it has been evaluated
            kept.stop.requested = signal.SIGTERM

    run = training("gaussian", kept, epochs=3, log_every=100, record=hear)
    with pytest.raises(Stopped):
        run.fit()
    assert run.session.step == 3
    assert checkpoint.read(tmp_path / "last.pt").meta["step"] == 3


def test_a_run_that_is_told_to_stop_on_a_full_disk_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    kept = Kept(tmp_path)
    run = training("gaussian", kept, epochs=3, log_every=100)
    kept.stop.requested = signal.SIGTERM
    monkeypatch.setattr(checkpoint, "write", full)
    with pytest.raises(Stopped):
        run.fit()
    assert "No space left on device" in caplog.text
