"""TensorBoard: its own reader finds what was logged, once, whatever happened on the way."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tracked import CURVES, MATRIX, MISTAKES, PICTURE, ROWS, run_in

from eqprop.config.compose import compose, validate_composed
from eqprop.run.errors import ConfigError
from eqprop.tracking import LocalFiles, RunInfo, TensorboardTracker, Trackers

pytest.importorskip("tensorboard")
THINGS = [("curves", curve) for curve in CURVES] + [("confusion/test", MATRIX)]


@pytest.fixture
def run(tmp_path: Path) -> RunInfo:
    return run_in(tmp_path)


def record(run: RunInfo, rows: Iterable[Any], things: Iterable[Any], end: bool = True) -> Trackers:
    trackers = Trackers([LocalFiles(), TensorboardTracker()])
    trackers.start(run)
    for row in rows:
        trackers.log(row)
    for name, thing in things:
        trackers.show(name, thing, getattr(thing, "step", 20))
    if end:
        trackers.finish({"best/accuracy/validation": 0.75}, "done")
    return trackers


def read(folder: Path) -> Any:
    """TensorBoard's own view of a folder, with nothing thinned out."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(
        str(folder), dict.fromkeys(("scalars", "images", "tensors"), 0)
    ).Reload()


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = read(folder)
    tags = found.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in tags}


def raw(folder: Path) -> list[tuple[str, int]]:
    """Every value in every event file, whatever a reader would make of them."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    return [
        (value.tag, event.step)
        for path in sorted(folder.rglob("events.*"))
        for event in LegacyEventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]


def test_every_number_at_its_step(run: RunInfo) -> None:
    record(run, ROWS, [])
    found = scalars(run.folder / "tensorboard")
    for name in ("cost/free", "accuracy/train", "accuracy/validation", "time/train_s", "epoch"):
        expected = [(row["step"], row[name]) for row in ROWS if name in row]
        assert found[name] == expected
    assert found["best/accuracy/validation"] == [(1, 0.75)]


def test_numbers_are_there_at_once(run: RunInfo) -> None:
    trackers = record(run, ROWS, [], end=False)
    assert scalars(run.folder / "tensorboard")["cost/free"] == [(0, 2.5), (1, 1.5)]
    trackers.finish({}, "failed")


def test_what_is_not_finite_is_left_out(run: RunInfo) -> None:
    record(run, [{"step": 1, "a": float("nan"), "b": 2.0}], [])
    found = scalars(run.folder / "tensorboard")
    assert "a" not in found
    assert found["b"] == [(1, 2.0)]


def test_curves_are_tags_of_the_one_run_over_the_relaxation_s_steps(run: RunInfo) -> None:
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata

    record(run, ROWS, THINGS)
    found = scalars(run.folder / "tensorboard")
    for epoch in (1, 2):
        assert found[f"curves/nudged_energy/000{epoch}"] == [(0, 2.0), (1, 1.0 / epoch), (2, 0.25)]
        assert found[f"curves/free_residual/000{epoch}"] == [(0, 0.5), (1, 0.25), (2, 0.125)]
    runs = EventMultiplexer().AddRunsFromDirectory(str(run.outputs)).Reload().Runs()
    assert list(runs) == ["2026-01-02/run/tensorboard"]
    (event,) = read(run.folder / "tensorboard").Tensors(metadata.CONFIG_SUMMARY_TAG)
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    charts = [chart for category in layout.category for chart in category.chart]
    for chart in charts:  # each chart lays the epochs of one curve over one another
        (tag,) = chart.multiline.tag
        assert [t for t in found if re.fullmatch(tag, t)] == [
            f"{chart.title}/0001",
            f"{chart.title}/0002",
        ]
    assert len(charts) == 4


def test_the_matrix_and_the_mistakes_are_pictures_and_tables(run: RunInfo) -> None:
    record(run, ROWS, [("confusion/test", MATRIX), ("mistakes/test", MISTAKES)])
    found = read(run.folder / "tensorboard")
    (pictures,) = found.Images("mistakes/test")  # one beside the other
    assert (pictures.step, pictures.width, pictures.height) == (20, 8, 3)
    (table,) = found.Tensors("confusion/test/text_summary")
    (text,) = table.tensor_proto.string_val
    assert "|cat|3|1|" in text.decode()
    (table,) = found.Tensors("mistakes/test/text_summary")
    assert "|5|cat|dog|0.75|2.5|" in table.tensor_proto.string_val[0].decode()


def test_a_picture_at_its_step(run: RunInfo) -> None:
    record(run, ROWS, [("filters/1", PICTURE)])
    (found,) = read(run.folder / "tensorboard").Images("filters/1")
    assert (found.step, found.width, found.height) == (20, 4, 3)


def test_the_hparams_page_has_the_configuration_and_the_end(run: RunInfo) -> None:
    from tensorboard.plugins.hparams import api_pb2, metadata

    record(run, ROWS, [])
    found = read(run.folder / "tensorboard")
    assert set(found.PluginTagToContent("hparams")) == set(metadata_tags())
    content = found.PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
    assert start.hparams["optimizer.lr"].number_value == 0.001
    assert start.hparams["model.hidden"].string_value == "[100, 50]"
    end = metadata.parse_session_end_info_plugin_data(content[metadata.SESSION_END_INFO_TAG])
    assert end.status == api_pb2.STATUS_SUCCESS


def metadata_tags() -> list[str]:
    from tensorboard.plugins.hparams import metadata

    return [
        metadata.EXPERIMENT_TAG,
        metadata.SESSION_START_INFO_TAG,
        metadata.SESSION_END_INFO_TAG,
    ]


@pytest.mark.parametrize("torn", [False, True])
def test_resumed_nothing_is_there_twice_and_nothing_is_missing(run: RunInfo, torn: bool) -> None:
    """Killed after row 3 and the curves of epoch 2; the checkpoint is of row 1, in epoch 2."""
    record(run, ROWS, THINGS[:4], end=False).finish({}, "failed")
    folder = run.folder / "tensorboard"
    if torn:
        (file,) = folder.glob("events.*")
        file.write_bytes(file.read_bytes()[:-7])
    metrics = run.folder / "metrics.jsonl"
    metrics.write_text(json.dumps(ROWS[0]) + "\n")  # as resuming cuts it
    record(dataclasses.replace(run, resumed=True, epoch=2), ROWS[1:], THINGS[2:])
    found = raw(folder)
    once = [at for at in found if not at[0].startswith(("curves/", "epoch", "_hparams_"))]
    assert len(once) == len(set(once))
    assert scalars(folder)["cost/free"] == [(0, 2.5), (1, 1.5)]
    curves = [at for at in found if at[0].startswith("curves/")]
    assert len(curves) == len(set(curves)) == 24


def test_it_is_looked_for_among_its_neighbours_and_elsewhere_alone(
    run: RunInfo, tmp_path: Path
) -> None:
    """TensorBoard's names begin below the folder: a run's own comes first, not a date."""
    tracker = TensorboardTracker()
    neighbour = run.outputs / "multirun" / "2026-01-31" / "12-00-00" / "3-hopfield-a1b2c3"
    neighbour.mkdir(parents=True)
    tracker.start(dataclasses.replace(run, folder=neighbour))
    assert tracker.location() == f"tensorboard --logdir {os.path.relpath(neighbour.parent)}"
    tracker.abandon()
    other = tmp_path / "some where"
    other.mkdir()
    tracker.start(dataclasses.replace(run, folder=other))
    assert tracker.location() == f"tensorboard --logdir '{os.path.relpath(other)}'"
    tracker.abandon()


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "tensorboard" else real(name)
    )
    with pytest.raises(ConfigError, match=r'pip install "eqprop\[tensorboard\]"'):
        validate_composed(compose(["tracking=tensorboard"]))
