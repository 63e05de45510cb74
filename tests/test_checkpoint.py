"""The checkpoint's file: written whole or not at all, and what keeps it."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import training

import eqprop
from eqprop import checkpoint, snapshot
from eqprop.checkpoint import CheckpointError
from eqprop.errors import RunError
from eqprop.keeper import Checkpoints
from eqprop.signals import Stop

META = {"kind": "training", "epoch": 1, "batches": 0}


def keeper(folder: Path, **changes: Any) -> Checkpoints:
    return Checkpoints(folder, {"config": {}}, Stop(), lambda: 0, **changes)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    state = {"weights": torch.randn(3, 4), "numbers": [1, 2.5, None, True, "é"]}
    checkpoint.write(path, {**META, "best": {"a": 0.1}}, state)
    found = checkpoint.read(path)
    assert found.meta == {**META, "best": {"a": 0.1}} == checkpoint.peek(path)
    assert torch.equal(found.tensors()["weights"], state["weights"])
    assert found.tensors()["numbers"] == state["numbers"]


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    state = {"weights": torch.ones(3)}
    for name in ("a.pt", "b.pt"):
        checkpoint.write(tmp_path / name, META, state)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_the_order_of_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushed, verified, the one before put aside, renamed, the folder flushed: in this order."""
    calls: list[str] = []

    def noting(name: str, function: Any, tell: Any) -> Any:
        def call(*args: Any) -> Any:
            calls.append(f"{name} {tell(*args)}")
            return function(*args)

        return call

    checkpoint.write(tmp_path / "last.pt", META, {})
    is_folder = {True: "folder", False: "file"}
    kind = lambda fd: is_folder[os.path.isdir(f"/proc/self/fd/{fd}")]  # noqa: E731
    name_of = lambda _, target: Path(target).name  # noqa: E731
    monkeypatch.setattr(os, "fsync", noting("fsync", os.fsync, kind))
    monkeypatch.setattr(os, "replace", noting("rename", os.replace, name_of))
    monkeypatch.setattr(checkpoint, "read", noting("read", checkpoint.read, lambda path: "back"))
    checkpoint.write(tmp_path / "last.pt", META, {})
    expected = ["fsync file", "read back", "rename last.previous.pt", "rename last.pt"]
    assert calls == [*expected, "fsync folder"]


def test_a_disk_that_lies_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read back is not what was written: the old file stays."""
    path = tmp_path / "last.pt"
    checkpoint.write(path, META, {"a": torch.zeros(2)})
    before = path.read_bytes()
    fsync = os.fsync

    def losing(descriptor: int) -> None:
        os.pwrite(descriptor, b"\0\0\0\0", 200) if not os.path.isdir(
            f"/proc/self/fd/{descriptor}"
        ) else None
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", losing)
    with pytest.raises(OSError, match="not what is read back"):
        checkpoint.write(path, META, {"a": torch.ones(2)})
    assert path.read_bytes() == before
    assert names(tmp_path) == ["last.pt"]


# when


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


# putting it back


def test_a_checkpoint_of_another_network_changes_nothing(tmp_path: Path) -> None:
    run = training(epochs=1)
    meta, state = snapshot.capture(run)
    state["model"]["W.1.bias"] = torch.zeros(7)
    checkpoint.write(tmp_path / "x.pt", meta, state)
    other = training(epochs=1)
    before = [p.detach().clone() for p in other.model.parameters()]
    with pytest.raises(CheckpointError, match=r"of another network: W.1.bias is \(7,\) there"):
        snapshot.restore(other, checkpoint.read(tmp_path / "x.pt"))
    after = list(other.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("missing", ["W.0.weight", "extra"])
def test_weights_that_are_missing_or_too_many(missing: str, tmp_path: Path) -> None:
    run = training(epochs=1)
    meta, state = snapshot.capture(run)
    weights = dict(state["model"])
    weights.pop(missing, None)
    if missing == "extra":
        weights["extra"] = torch.zeros(1)
    checkpoint.write(tmp_path / "x.pt", meta, {**state, "model": weights})
    with pytest.raises(CheckpointError, match="of another network"):
        snapshot.restore(training(epochs=1), checkpoint.read(tmp_path / "x.pt"))


def test_an_optimizer_state_of_another_shape(tmp_path: Path) -> None:
    run = training(epochs=1)
    run.optimizer = torch.optim.Adam(run.model.parameters(), lr=1e-3)
    run.fit()
    meta, state = snapshot.capture(run)
    state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(1000, 1000)
    checkpoint.write(tmp_path / "x.pt", meta, state)
    with pytest.raises(CheckpointError, match="of another optimizer: exp_avg has shape"):
        snapshot.restore(run, checkpoint.read(tmp_path / "x.pt"))


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


# disks


def test_a_full_disk_is_a_warning_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = training(epochs=4, log_every=100)
    run.keeper = keeper(tmp_path)
    write = checkpoint.write

    def full(path: Path, meta: Any, state: Any) -> None:
        if path.name == "last.pt" and meta["step"] in (6, 9):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, meta, state)

    monkeypatch.setattr(checkpoint, "write", full)
    run.fit()
    (warning,) = (r.getMessage() for r in caplog.records if "cannot save" in r.getMessage())
    assert "No space left on device; the run goes on" in warning
    assert checkpoint.read(tmp_path / "last.pt").meta["step"] == 12
    assert checkpoint.read(tmp_path / "last.previous.pt").meta["step"] == 3


def test_a_full_disk_at_the_end_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training(epochs=2, log_every=100)
    run.keeper = keeper(tmp_path)
    write = checkpoint.write

    def full(path: Path, meta: Any, state: Any) -> None:
        if path.name == "last.pt" and meta["step"] == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, meta, state)

    monkeypatch.setattr(checkpoint, "write", full)
    with pytest.raises(RunError, match="No space left on device; what was saved before is still"):
        run.fit()
    assert checkpoint.read(tmp_path / "last.pt").meta["step"] == 3


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    run = training(epochs=3, log_every=100)
    run.keeper = keeper(folder)
    run.advance = lambda samples: folder.rmdir() if run.step == 2 else None
    with pytest.raises(RunError, match="the run's folder is gone"):
        run.fit()


def test_load_is_exported() -> None:
    assert callable(eqprop.load)
    assert "load" in dir(eqprop)
