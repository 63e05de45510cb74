"""Weights & Biases offline: W&B's own reader finds in its files what was logged."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tracked import ROWS, SCRIPT, drive, recorded, records, run_in, script, summary_of

from eqprop.tracking import LocalFiles, RunInfo, Trackers, WandbTracker


@pytest.fixture
def run(tmp_path: Path) -> RunInfo:
    return run_in(tmp_path)


@pytest.fixture
def wandb() -> Iterator[Any]:
    """W&B's module; its service process ends with the test."""
    module = pytest.importorskip("wandb")
    yield module
    module.teardown()


def test_wandb_records_the_whole_run(run: RunInfo, wandb: Any) -> None:
    tracker = WandbTracker()
    tracker.start(run)
    for row in ROWS:
        tracker.log(row)
    # the last row's value is still pending when the summary overrides it
    tracker.finish({"best/accuracy/validation": 0.9, "accuracy/validation": 0.8}, "done")
    file = recorded(run.outputs, run.id)
    found = summary_of(file)
    assert found["config"] == run.config
    assert found["tags"] == ["baseline", "two"]
    assert (found["name"], found["notes"]) == (run.name, "a note")
    assert (found["project"], found["run_id"]) == ("eqprop", run.id)
    assert (found["state"], found["exit_code"]) == ("finished", 0)
    assert found["summary"]["best/accuracy/validation"] == 0.9
    assert found["summary"]["accuracy/validation"] == 0.8
    everything = records(file)
    (header,) = (r["run"] for r in everything if r["type"] == "run")
    assert header["run_group"] == "sweep 1"
    history = [r["history"]["item"] for r in everything if r["type"] == "history"]
    own = [{k: v for k, v in row.items() if not k.startswith("_")} for row in history]
    assert own == [ROWS[0], {**ROWS[1], **ROWS[2]}]
    assert [row["_step"] for row in history] == [0, 1]


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_wandb_shows_a_failed_run_as_failed(run: RunInfo, state: str, wandb: Any) -> None:
    drive(WandbTracker(), run, state)
    assert summary_of(recorded(run.outputs, run.id))["state"] == "failed"


def test_wandb_loses_no_row_whose_step_goes_back(run: RunInfo, wandb: Any) -> None:
    tracker = WandbTracker()
    tracker.start(run)
    tracker.log({"step": 5, "epoch": 0, "a": 1.0})
    tracker.log({"step": 3, "epoch": 0, "b": 2.0})
    tracker.finish({}, "done")
    found = summary_of(recorded(run.outputs, run.id))["summary"]
    assert (found["a"]["last"], found["b"]["last"]) == (1.0, 2.0)


def test_wandb_runs_of_one_process_lie_side_by_side(
    run: RunInfo, wandb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.outputs.parent)
    for run_id in ["first", "second"]:
        tracker, outputs = WandbTracker(), Path("outputs")
        drive(tracker, RunInfo(run_id, "n", "eqprop", run.folder, outputs, tags=("x" * 64,)))
        assert tracker.location() == "wandb leet outputs/wandb"
    for run_id in ["first", "second"]:
        assert summary_of(recorded(run.outputs, run_id))["state"] == "finished"


def test_wandb_gives_up_a_run_that_was_left_open(run: RunInfo, wandb: Any) -> None:
    WandbTracker().start(RunInfo("left", "n", "eqprop", run.folder, run.outputs))
    drive(WandbTracker(), run)
    assert summary_of(recorded(run.outputs, "left"))["state"] == "failed"
    assert summary_of(recorded(run.outputs, run.id))["state"] == "finished"


def test_what_is_configured_wins_over_variables(
    run: RunInfo, wandb: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those without a say are named in one line."""
    hostile = {
        "WANDB_MODE": "disabled",
        "WANDB_DISABLED": "true",
        "WANDB_RUN_ID": "other",
        "WANDB_NAME": "other",
        "WANDB_SERVICE": "3-1-unix-/nowhere",
        "WANDB_API_KEY": "too short",
        "WANDB_RESUME": "must",
    }
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    configured = replace(run, config={**run.config, "name": run.name})
    with caplog.at_level("INFO"):
        drive(WandbTracker(), configured)
    (line,) = [text for text in caplog.messages if "ignored" in text]
    for name in ("WANDB_MODE", "WANDB_DISABLED", "WANDB_RUN_ID", "WANDB_RESUME"):
        assert f"{name}={hostile[name]}" in line
    assert summary_of(recorded(run.outputs, run.id))["name"] == run.name
    assert {name: os.environ[name] for name in hostile} == hostile


def test_wandb_writes_no_secret(
    run: RunInfo, wandb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "s3cret-value-of-a-key"
    repository = tmp_path / "repository"
    repository.mkdir()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]
    (repository / "code.py").write_text("old\n")
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["commit", "-qm", "first"],
        ["remote", "add", "origin", f"https://{secret}@example.com/x.git"],
    ):
        subprocess.run([*git, *command], cwd=repository, check=True)
    (repository / "code.py").write_text(f"{secret}\n")
    monkeypatch.chdir(repository)
    monkeypatch.setenv("WANDB_API_KEY", secret)
    monkeypatch.setattr(sys, "argv", ["train.py", f"+key={secret}"])
    drive(WandbTracker(), run)
    assert sys.argv[1] == f"+key={secret}"
    files = [path for path in run.outputs.rglob("*") if path.is_file()]
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
    (header,) = (r["run"] for r in records(recorded(run.outputs, run.id)) if r["type"] == "run")
    assert header["git"]["remote_url"] == "https://***@example.com/x.git"
    assert len(header["git"]["commit"]) == 40


KILL = """
import time, psutil
def kill():
    for child in psutil.Process().children():
        child.kill()
        child.wait()
    time.sleep(0.3)
record("first", kill)
kill()
record("second")
"""


def test_a_killed_service_costs_one_warning_and_not_the_next_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    done = script(SCRIPT + KILL, tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "WandbTracker failed" in done.stderr
    assert len((tmp_path / "out" / "first" / "metrics.jsonl").read_text().splitlines()) == 3
    assert summary_of(recorded(tmp_path / "out", "second"))["state"] == "finished"


def test_giving_up_a_service_that_has_died_does_not_end_the_run(
    wandb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B's teardown exits with the status of its service, where that was killed in the middle."""
    monkeypatch.setattr(wandb, "teardown", lambda **_: sys.exit(-9))
    WandbTracker().abandon()


def test_without_home_and_locale_it_is_quiet(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    work = tmp_path / "work"
    work.mkdir()
    code = f"import os\ndel os.environ['HOME']\n{SCRIPT}\nrecord('run')\n"
    done = script(code, tmp_path / "out", cwd=work, LANG="C", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""
    assert list(work.iterdir()) == []
    assert summary_of(recorded(tmp_path / "out", "run"))["state"] == "finished"


def test_an_output_folder_that_wandb_cannot_write(
    run: RunInfo, caplog: pytest.LogCaptureFixture
) -> None:
    (run.outputs / "wandb").write_text("a file")
    drive(Trackers([LocalFiles(), WandbTracker()]), run)
    assert len(caplog.records) == 1
    assert len((run.folder / "metrics.jsonl").read_text().splitlines()) == len(ROWS)
