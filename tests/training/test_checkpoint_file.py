"""The checkpoint's file: written whole or not at all, and what a disk may do to it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import training

import eqprop
from eqprop.run import checkpoint
from eqprop.run.errors import RunError
from eqprop.run.signals import Stop
from eqprop.training.callback import Callback
from eqprop.training.checkpoints import Checkpoints
from eqprop.training.divergence_guard import DivergenceGuard
from eqprop.training.session import Session

META = {"kind": "training", "epoch": 1, "batches": 0}


def saving(folder: Path) -> Checkpoints:
    return Checkpoints(folder, {"config": {}}, Stop(), lambda: 0, DivergenceGuard())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    state = {"weights": torch.randn(3, 4), "numbers": [1, 2.5, None, True, "é"]}
    checkpoint.write(path, {**META, "best": {"a": 0.1}}, state)
    found = checkpoint.read(path)
    assert found.meta == {**META, "best": {"a": 0.1}}
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


def test_a_full_disk_is_a_warning_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = training("gaussian", saving(tmp_path), epochs=4, log_every=100)
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
    run = training("gaussian", saving(tmp_path), epochs=2, log_every=100)
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

    class Removing(Callback):
        def on_step(self, session: Session, samples: int) -> None:
            if session.step == 2:
                folder.rmdir()

    run = training("gaussian", Removing(), saving(folder), epochs=3, log_every=100)
    with pytest.raises(RunError, match="the run's folder is gone"):
        run.fit()


def test_load_is_exported() -> None:
    assert callable(eqprop.load)
    assert "load" in dir(eqprop)
