"""What is no number: handed to every tracker, and kept in the run's own files."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tracked import CURVES, MATRIX, MISTAKES, PICTURE, PIXELS, Recorder, run_in

from eqprop.run.errors import RunError
from eqprop.tracking import LocalFiles, RunInfo, Trackers
from eqprop.tracking.base import Picture
from eqprop.tracking.local import read_curves


@pytest.fixture
def run(tmp_path: Path) -> RunInfo:
    return run_in(tmp_path)


def test_every_tracker_is_shown_everything(run: RunInfo) -> None:
    first, second = Recorder(), Recorder()
    trackers = Trackers([first, second])
    trackers.show("confusion/test", MATRIX, 7)
    assert first.calls == second.calls == [("show", "confusion/test", MATRIX, 7)]


def test_a_tracker_that_cannot_show_costs_one_warning(
    run: RunInfo, caplog: pytest.LogCaptureFixture
) -> None:
    good, failing = Recorder(), Recorder("show")
    trackers = Trackers([failing, good])
    trackers.start(run)
    trackers.show("confusion/test", MATRIX, 1)
    trackers.show("mistakes/test", MISTAKES, 1)
    trackers.finish({}, "done")
    assert [call[0] for call in good.calls] == ["start", "show", "show", "finish"]
    assert [call[0] for call in failing.calls] == ["start", "show", "abandon"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "disk full" in record.getMessage()


def shown(run: RunInfo, *things: object) -> None:
    tracker = LocalFiles()
    tracker.start(run)
    for thing in things:
        tracker.show("name", thing, 1)
    tracker.finish({}, "done")


def test_curves_are_lines_of_json(run: RunInfo) -> None:
    shown(run, *CURVES)
    lines = (run.folder / "curves.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "epoch": curve.epoch,
            "step": curve.step,
            "phase": curve.phase,
            "energy": list(curve.energy),
            "residual": list(curve.residual),
        }
        for curve in CURVES
    ]
    assert list(read_curves(run.folder)) == CURVES


def test_the_evaluation_is_one_object(run: RunInfo) -> None:
    shown(run, MATRIX, MISTAKES)
    found = json.loads((run.folder / "evaluation.json").read_text())
    assert found["confusion"] == [[3, 1], [2, 4]]
    assert found["classes"] == ["cat", "dog"]
    assert found["mistakes"][0] == {
        "index": 5,
        "target": 0,
        "predicted": 1,
        "probability": 0.75,
        "target_probability": 0.25,
        "cost": 2.5,
    }
    assert len(found["mistakes"]) == 2
    with Image.open(run.folder / "pictures" / "name.png") as sheet:
        assert np.array_equal(np.asarray(sheet), np.concatenate([PIXELS, PIXELS], axis=1))


def test_the_newest_picture_is_a_file(run: RunInfo) -> None:
    colours = np.stack([PIXELS, 2 * PIXELS, 255 - PIXELS], 2)
    tracker = LocalFiles()
    tracker.start(run)
    for name, picture in (("a/1", Picture(colours)), ("a/1", PICTURE), ("b/2", Picture(colours))):
        tracker.show(name, picture, 3)
    tracker.finish({}, "done")
    grey, colourful = (Image.open(run.folder / f"pictures/{name}.png") for name in ("a/1", "b/2"))
    assert np.array_equal(np.asarray(grey), PIXELS)
    assert np.array_equal(np.asarray(colourful), colours)


def test_what_is_not_finite_is_null(run: RunInfo) -> None:
    shown(run, dataclasses.replace(CURVES[0], energy=(1.0, math.nan), residual=(math.inf, 0.5)))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    line = (run.folder / "curves.jsonl").read_text()
    found = json.loads(line, parse_constant=refuse)
    assert (found["energy"], found["residual"]) == ([1.0, None], [None, 0.5])
    (curve,) = read_curves(run.folder)
    assert np.isnan(curve.energy[1])


def test_resumed_it_forgets_what_comes_again(run: RunInfo) -> None:
    shown(run, *CURVES)
    with open(run.folder / "curves.jsonl", "a") as file:
        file.write('{"epoch": 1, "st')
    again = dataclasses.replace(run, resumed=True, epoch=2)
    shown(again, *[curve for curve in CURVES if curve.epoch >= 2])
    assert list(read_curves(run.folder)) == CURVES
    text = (run.folder / "curves.jsonl").read_text()
    assert len(text.splitlines()) == len(CURVES)


def test_what_it_does_not_know_is_ignored(run: RunInfo) -> None:
    shown(run, object())
    assert [path.name for path in run.folder.iterdir()] == ["metrics.jsonl"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_curves_on_a_full_disk_end_the_run(run: RunInfo) -> None:
    (run.folder / "curves.jsonl").symlink_to("/dev/full")
    trackers = Trackers([LocalFiles()])
    trackers.start(run)
    with pytest.raises(RunError, match=r"curves.jsonl: No space left"):
        trackers.show("curves/free", CURVES[0], 1)
    trackers.finish({}, "failed")
