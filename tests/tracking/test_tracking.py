"""Trackers: what was logged is read back, and a tracker that fails costs one warning."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from tracked import ROWS, Recorder, drive, run_in

from eqprop.run.errors import RunError
from eqprop.tracking import LocalFiles, RunInfo, Trackers


@pytest.fixture
def run(tmp_path: Path) -> RunInfo:
    return run_in(tmp_path)


# the fan-out


def test_every_tracker_gets_every_call(run: RunInfo) -> None:
    first, second = Recorder(), Recorder()
    drive(Trackers([first, second]), run)
    assert first.calls == second.calls
    assert [call[0] for call in first.calls] == ["start", "log", "log", "log", "finish"]
    assert first.calls[-1] == ("finish", {"best/accuracy/validation": 0.75}, "done")


@pytest.mark.parametrize("bad", ["start", "log", "finish"])
def test_a_failing_tracker_costs_one_warning(
    run: RunInfo, bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, failing = Recorder(), Recorder(bad)
    trackers = Trackers([failing, good])
    drive(trackers, run)
    assert len(good.calls) == 5
    assert [call[0] for call in failing.calls].count(bad) == 1
    assert failing.calls[-1] == ("abandon",)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "\n" not in record.getMessage()
    assert "disk full" in record.getMessage()
    assert trackers.locations() == ["look at me"]


def test_ctrl_c_is_not_a_failing_tracker(run: RunInfo) -> None:
    with pytest.raises(KeyboardInterrupt):
        drive(Trackers([Recorder("log", KeyboardInterrupt())]), run)


# the metrics file


def test_jsonl_is_what_was_logged(run: RunInfo) -> None:
    tracker = LocalFiles()
    drive(tracker, run)
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == ROWS
    assert tracker.location() == str(run.folder / "metrics.jsonl")


def test_jsonl_is_flushed_row_by_row(run: RunInfo) -> None:
    tracker = LocalFiles()
    tracker.start(run)
    for n, row in enumerate(ROWS, 1):
        tracker.log(row)
        assert len((run.folder / "metrics.jsonl").read_text().splitlines()) == n
    tracker.finish({}, "done")


def test_jsonl_is_strict_json(run: RunInfo) -> None:
    tracker = LocalFiles()
    tracker.start(run)
    tracker.log({"step": np.int64(3), "a": float("nan"), "b": -float("inf"), "c": np.float32(0.5)})
    tracker.finish({}, "done")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    line = (run.folder / "metrics.jsonl").read_text()
    found = json.loads(line, parse_constant=refuse)
    assert found == {"step": 3, "a": None, "b": None, "c": 0.5}


def test_jsonl_that_cannot_be_written_ends_the_run(run: RunInfo) -> None:
    (run.folder / "metrics.jsonl").mkdir()
    with pytest.raises(RunError, match=r"cannot write .*metrics\.jsonl"):
        drive(Trackers([LocalFiles()]), run)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_jsonl_on_a_full_disk_ends_the_run(run: RunInfo) -> None:
    (run.folder / "metrics.jsonl").symlink_to("/dev/full")
    tracker = LocalFiles()
    with pytest.raises(RunError, match="No space left"):
        drive(Trackers([tracker]), run)
    with contextlib.suppress(RunError):
        tracker.finish({}, "failed")
