"""The record of a run: true at every moment, from its claim to its end."""

from __future__ import annotations

import errno
import json
import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from eqprop.run.errors import ConfigError, DataError, RunError
from eqprop.run.folder import RunFolder


def status(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def test_a_run_from_claim_to_finish(tmp_path: Path) -> None:
    path = tmp_path / "outputs" / "run"
    folder = RunFolder.claim(path, ["train.py", "seed=1"])
    assert folder.path == path
    assert folder.checkpoints.is_dir()
    running = status(path)
    assert running["state"] == "running"
    assert running["pid"] == os.getpid()
    assert running["host"]
    assert running["end"] is running["exit_code"] is running["objective"] is None
    folder.finish("done", objective=0.95)
    done = status(path)
    assert (done["state"], done["exit_code"], done["objective"]) == ("done", 0, 0.95)
    start, end = datetime.fromisoformat(done["start"]), datetime.fromisoformat(done["end"])
    assert start.utcoffset() == timedelta(0)
    assert start <= end


def test_the_first_finish_counts(tmp_path: Path) -> None:
    folder = RunFolder.claim(tmp_path / "run")
    folder.finish("failed", 1, "diverged\nat step 3")
    folder.finish("done", 0)
    assert status(folder.path)["state"] == "failed"
    assert status(folder.path)["reason"] == "diverged at step 3"


def test_an_objective_that_is_not_finite_is_null(tmp_path: Path) -> None:
    folder = RunFolder.claim(tmp_path / "run")
    folder.finish("done", objective=float("nan"))
    assert status(folder.path)["objective"] is None
    assert status(folder.path)["reason"] == "the objective is nan"


@pytest.mark.parametrize(
    ("error", "state", "exit_code"),
    [
        (KeyboardInterrupt(), "interrupted", 130),
        (DataError("x is missing"), "failed", 2),
        (RunError("diverged"), "failed", 1),
        (SystemExit(3), "failed", 3),
        (SystemExit("no"), "failed", 1),
        (ValueError("bug"), "failed", 1),
    ],
)
def test_an_exception_ends_the_record(
    tmp_path: Path, error: BaseException, state: str, exit_code: int
) -> None:
    with pytest.raises(type(error)), RunFolder.claim(tmp_path / "run"):
        raise error
    found = status(tmp_path / "run")
    assert (found["state"], found["exit_code"]) == (state, exit_code)
    assert found["reason"] == (str(error) or type(error).__name__)


@pytest.mark.parametrize("code", [0, None])
def test_leaving_in_the_middle_is_no_end(tmp_path: Path, code: int | None) -> None:
    with pytest.raises(SystemExit), RunFolder.claim(tmp_path / "run"):
        raise SystemExit(code)
    found = status(tmp_path / "run")
    assert (found["state"], found["exit_code"]) == ("failed", 0)
    assert "sys.exit(0)" in found["reason"]


def test_a_block_that_ends_is_done(tmp_path: Path) -> None:
    with RunFolder.claim(tmp_path / "run"):
        pass
    assert status(tmp_path / "run")["state"] == "done"


def test_a_folder_removed_during_the_run_is_one_line(tmp_path: Path) -> None:
    folder = RunFolder.claim(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="cannot record the end of the run"):
        folder.finish("done")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write .*file.*paths\.outputs"):
        RunFolder.claim(tmp_path / "file" / "run")


def test_a_full_disk_at_the_first_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fail)
        with pytest.raises(ConfigError, match="No space left"):
            RunFolder.claim(tmp_path / "run")
    RunFolder.claim(tmp_path / "run").finish("done")  # nobody holds it


def test_a_status_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader finds a whole file at every moment; and what ended the run is what is told."""
    folder = RunFolder.claim(tmp_path / "run")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ValueError, match="what ended the run"), folder:
        raise ValueError("what ended the run")
    assert status(tmp_path / "run")["state"] == "running"


def test_a_resumed_run_keeps_its_start_and_tells_when_it_went_on(tmp_path: Path) -> None:
    RunFolder.claim(tmp_path / "run").finish("interrupted", 143)
    path = tmp_path / "run" / "status.json"
    path.write_text(json.dumps({**status(tmp_path / "run"), "start": "2026-01-31T00:00:00+00:00"}))
    RunFolder.claim(tmp_path / "run", resume=True).finish("done")
    found = status(tmp_path / "run")
    assert found["start"] == "2026-01-31T00:00:00+00:00"
    (again,) = found["resumed"]
    assert found["start"] < again <= found["end"]


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    RunFolder.claim(tmp_path / "run").finish("interrupted", 143)
    left = [tmp_path / "run" / ".status.json.1-ab.tmp"]
    left.append(tmp_path / "run" / "checkpoints" / ".last.pt.1-ab.tmp")
    for path in left:
        path.write_bytes(b"half")
    RunFolder.claim(tmp_path / "run", resume=True).finish("done")
    assert not any(path.exists() for path in left)
