"""Reading runs in whatever state, and what repeats of a point are together."""

from __future__ import annotations

import base64
import json
import math
import os
import statistics
from pathlib import Path

import pytest
from made_runs import add_details, make_run, make_sweep, write_rows

from eqprop.report import charts, curves
from eqprop.report.runs import differing, find_runs, own_overrides, points_of
from eqprop.run.errors import UserError
from eqprop.run.lock import take_lock
from eqprop.run.reading import Run, read_rows, read_run
from eqprop.sweep.job import Outcome, record_end


def test_a_run_that_is_done(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "a", lr=0.003))
    assert (run.state, run.failure, run.problems) == ("done", None, [])
    assert (run.epochs, run.seconds) == (5, 16.5)
    assert run.config["optimizer.lr"] == 0.003
    assert run.config["optimizer.betas"] == "[0.9, 0.999]"
    assert "seed=1" in run.overrides
    x, y = run.points("energy/free", "step")
    assert x == list(range(1, 21))
    assert y == [3.0 / step + 0.1 for step in range(1, 21)]


def test_a_running_run_lives_only_with_its_process(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", "running", pid=4711, host="here")
    run = read_run(folder)
    assert run.state == "killed"
    assert run.failure == "its process (4711 on here) is gone and recorded no end"
    lock = take_lock(folder)
    try:
        assert (read_run(folder).state, read_run(folder).failure) == ("running", None)
    finally:
        lock.release()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "\0\0", '{"state": 3}', "{" * 100_000, '{"state": "running"']
)
def test_a_damaged_status(text: str, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    (folder / "status.json").write_text(text)
    run = read_run(folder)
    assert run.state == "unknown"
    assert run.failure
    assert run.objective is None
    assert run.epochs == 5


def test_torn_and_strange_lines(tmp_path: Path) -> None:
    lines = [
        '{"step": 1, "epoch": 1, "accuracy/train": 0.5}',
        '{"step": 2, "epoch": 1, "accuracy/train": NaN, "energy/free": Infinity}',
        "not json",
        "[1, 2]",
        '{"step": "x", "epoch": null, "accuracy/train": 0.7}',
        '{"step": 3, "epoch": 2, "accuracy/train": true, "energy/free": 1e400}',
        '{"step": 4, "epoch": 2, "accuracy/train": ' + "9" * 400 + "}",
        '{"step": 5, "epoch": 2, "accura',
    ]
    (tmp_path / "metrics.jsonl").write_bytes("\n".join(lines).encode() + b"\xff\xfe")
    run = read_run(tmp_path)
    assert run.points("accuracy/train", "step") == ([1, 2, 4], [0.5, None, None])
    assert run.points("energy/free", "step") == ([2, 3], [None, None])
    assert run.problems == ["metrics.jsonl: 2 lines left out, no JSON object"]


def test_files_that_are_folders_or_unreadable(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    for name in ("metrics.jsonl", "status.json"):
        (folder / name).unlink()
        (folder / name).mkdir()
    (folder / ".hydra" / "config.yaml").write_text("a: [1\nb: }")
    run = read_run(folder)
    assert run.state == "unknown"
    assert len(run.problems) == 3
    assert run.config["optimizer.lr"] == 0.001  # from its overrides


def test_a_configuration_without_measure(tmp_path: Path) -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} {{p: *{a}, q: *{a}, r: *{a}}}\n"
        for a, b in zip("abcdefghijkl", "bcdefghijklm", strict=True)
    )
    config = make_run(tmp_path / "a") / ".hydra" / "config.yaml"
    config.write_text(bomb)
    assert 100 < len(read_run(tmp_path / "a").config) <= 2000
    config.write_text("a: &x {b: *x}")  # a tree that holds itself
    assert len(read_run(tmp_path / "a").config) == 1
    config.write_text("1: {null: 2}")
    assert read_run(tmp_path / "a").config == {"1.None": 2}


def test_values_that_are_odd(tmp_path: Path) -> None:
    config = make_run(tmp_path / "a") / ".hydra" / "config.yaml"
    config.write_text(
        f'b: {"9" * 400}\nc: .nan\nd: "x\\ny\\e[0m"\ne: [1, null, true, [2]]\n'
        "f: [1, null, true]\ng: {}\nh: true\ni: null\nj: 1e3\nk: 1.0e+3\n"
    )
    found = read_run(tmp_path / "a").config
    assert all(isinstance(found[key], str) for key in "bcdefg")
    assert max(len(str(value)) for value in found.values()) <= 300
    assert found["d"] == "x y\\x1b[0m"
    assert found["f"] == "[1, null, true]"
    assert (found["h"], found["i"], found["k"]) == (True, None, 1000)


def test_rows_for_a_tracker_have_a_step(tmp_path: Path) -> None:
    rows = [{"step": 1, "a": 1}, {"epoch": 1}, {"step": "x"}, {"step": 2, "a": None}]
    write_rows(tmp_path / "metrics.jsonl", rows)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('[1]\n{"step": 3, "a"')
    assert read_rows(tmp_path) == [rows[0], rows[3]]
    assert read_rows(tmp_path / "nowhere") == []


def test_runs_anywhere_below(tmp_path: Path) -> None:
    for name in ("b/10-x", "b/9-x", "a/deep/er"):
        make_run(tmp_path / name)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "b" / "9-x")
    runs = find_runs(tmp_path)
    found = [os.path.relpath(os.path.realpath(run.folder), tmp_path) for run in runs]
    assert sorted(found) == ["a/deep/er", "b/10-x", "b/9-x"]


def test_the_tenth_job_comes_after_the_ninth(tmp_path: Path) -> None:
    for name in ("10-x", "9-x", "a"):
        make_run(tmp_path / name)
    assert [run.folder.name for run in find_runs(tmp_path)] == ["9-x", "10-x", "a"]


@pytest.mark.parametrize("what", ["empty", "missing", "file"])
def test_no_run_is_one_line(what: str, tmp_path: Path) -> None:
    folder = tmp_path / what
    if what == "empty":
        (folder / "below").mkdir(parents=True)
    elif what == "file":
        folder.write_text("x")
    with pytest.raises(UserError) as error:
        find_runs(folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_job_that_never_began(tmp_path: Path) -> None:
    """Its sweep has written down how it failed, and its overrides."""
    (tmp_path / ".hydra").mkdir()
    words = ["optimizer.lr=abc", "+seed=3", "~model", "name=a,b"]
    (tmp_path / ".hydra" / "overrides.yaml").write_text(json.dumps(words))
    status = {"state": "failed", "exit_code": 2, "reason": "optimizer.lr: abc is no number"}
    (tmp_path / "status.json").write_text(json.dumps(status))
    run = read_run(tmp_path)
    assert (run.state, run.failure) == ("failed", "optimizer.lr: abc is no number")
    assert run.config == {"optimizer.lr": "abc", "seed": 3, "name": "a,b"}
    assert (run.overrides, run.composed) == (words, False)


def test_what_a_sweep_recorded_of_its_jobs(tmp_path: Path) -> None:
    """It writes into their folders what they could not: how they failed, and their overrides."""
    make_run(tmp_path / "0-killed", "running")
    words = ["optimizer.lr=abc", "seed=3"]
    for name, reason in (("0-killed", "killed by SIGKILL"), ("1-never", "lr: abc is no number")):
        (tmp_path / name).mkdir(exist_ok=True)
        record_end(tmp_path / name, Outcome("failed", None, reason, 1), words)
    found = {run.folder.name: run for run in find_runs(tmp_path)}
    assert {name: (run.state, run.failure) for name, run in found.items()} == {
        "0-killed": ("failed", "killed by SIGKILL"),
        "1-never": ("failed", "lr: abc is no number"),
    }
    assert found["1-never"].config == {"optimizer.lr": "abc", "seed": 3}


# ---------------------------------------------------------------------- repeats


def test_repeats_are_runs_that_differ_in_the_seed(tmp_path: Path) -> None:
    runs = find_runs(make_sweep(tmp_path))
    points = points_of(runs)
    assert len(points) == 11
    for point in points:
        assert len({runs[i].config["optimizer.lr"] for i in point.runs}) == 1
        values = [runs[i].objective for i in point.runs if runs[i].objective is not None]
        assert point.n == len(values)
        if len(values) > 1:
            assert point.mean == pytest.approx(statistics.mean(values), rel=1e-12)
            error = statistics.stdev(values) / math.sqrt(len(values))
            assert point.error == pytest.approx(error, rel=1e-9)
    means = [point.mean for point in points if point.mean is not None]
    assert means == sorted(means, reverse=True)
    assert points[-1].mean is None


def test_the_value_and_its_type_make_the_difference() -> None:
    assert differing([{"a": 1, "b": None}, {"a": 1.0}]) == ["b"]
    assert differing([{"a": True}, {"a": 1}]) == ["a"]
    assert differing([{"a": "1"}, {"a": 1}]) == ["a"]
    assert differing([{"a": 1}]) == []


def test_names_and_places_make_no_point() -> None:
    def run(**config: object) -> Run:
        flat = {"lr": 1, "name": None, "paths.outputs": "a", **config}
        return Run(Path(), "done", objective=0.5, config=flat, composed=True)

    assert len(points_of([run(seed=1), run(seed=2, name="x", **{"paths.outputs": "b"})])) == 1
    assert len(points_of([run(seed=1), run(seed=1, lr=2)])) == 2


# ---------------------------------------------------------------------- curves


def test_long_curves_keep_their_ends() -> None:
    assert list(curves.evenly(range(10_001), 11)) == list(range(0, 10_001, 1000))
    assert list(curves.evenly([1, 2], 11)) == [1, 2]


def test_a_metric_s_axis(tmp_path: Path) -> None:
    found, once = curves.charts_of([read_run(make_run(tmp_path / name)) for name in "ab"])
    axes = {chart.title: chart.axis for chart in found}
    assert next(iter(axes.items())) == ("accuracy/validation", "epoch")
    assert axes["energy/free"] == "step"
    assert list(axes)[-1].startswith("time/")
    assert once == ["accuracy/test"]


def test_one_run_has_related_metrics_in_one_chart(tmp_path: Path) -> None:
    found, once = curves.charts_of([read_run(make_run(tmp_path / "a"))])
    charted = {chart.title: list(chart.curves) for chart in found}
    assert charted["accuracy"] == ["accuracy/validation", "accuracy/train"]
    assert charted["relaxation residual"] == [
        "relaxation/free_residual",
        "relaxation/nudged_residual",
    ]
    assert len(charted) == len(found)  # no two of the same title
    assert once == ["accuracy/test"]


def test_relaxations(tmp_path: Path) -> None:
    row = {
        "epoch": 1,
        "step": 5,
        "phase": "free",
        "energy": [3, math.nan, 1],
        "residual": [2, 1, 0],
    }
    write_rows(tmp_path / "curves.jsonl", [row])
    (title, figure), (other, _) = charts.relaxations(read_run(tmp_path))
    assert (title, other) == ("energy, free phase", "residual, free phase")
    (trace,) = figure["data"]
    assert (trace["x"], trace["y"], trace["name"]) == ([0, 1, 2], [3, None, 1], "1")
    assert trace["text"] == "epoch 1, step 5"
    json.dumps(figure, allow_nan=False)


def test_a_number_that_never_changes_has_an_axis_that_shows_it(tmp_path: Path) -> None:
    rows = [{"step": i, "epoch": i, "learning_rate": 1e-3, "zero": 0, "x": i} for i in (1, 2, 3)]
    write_rows(tmp_path / "metrics.jsonl", rows)
    found = {chart.title: chart.range for chart in curves.charts_of([read_run(tmp_path)])[0]}
    assert found == {"learning_rate": [0.0, 2e-3], "zero": None, "x": None}


def test_pictures_are_those_of_a_run_and_no_other_files(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    add_details(folder)
    whole = (folder / "pictures/filters/1.png").read_bytes()
    (folder / "pictures/states/1.png").write_bytes(b"<svg onload=alert(1)>")
    (folder / "pictures/states/2.png").write_bytes(whole + bytes(2_000_000))
    run = read_run(folder)
    ((title, address),) = charts.pictures(run)
    assert title == "filters, layer 1"
    assert base64.b64decode(address.removeprefix("data:image/png;base64,")) == whole
    assert run.problems == [
        "1.png: is no PNG picture of a run",
        "2.png: is no PNG picture of a run",
    ]


def test_layers_have_charts_of_their_own(tmp_path: Path) -> None:
    names = ("energy/free", "energy/layer/1", "energy/layer/2", "saturation/1", "saturation/2",
             "relaxation/free_residual", "relaxation/free_residual/1")  # fmt: skip
    rows = [{"step": step, "epoch": 1, **dict.fromkeys(names, 1.0)} for step in (1, 2)]
    write_rows(tmp_path / "metrics.jsonl", rows)
    found, _ = curves.charts_of([read_run(tmp_path)])
    assert {chart.title: list(chart.curves) for chart in found} == {
        "energy": ["energy/free"],
        "energy/layer": ["energy/layer/1", "energy/layer/2"],
        "relaxation residual": ["relaxation/free_residual"],
        "relaxation/free_residual": ["relaxation/free_residual/1"],
        "saturation": ["saturation/1", "saturation/2"],
    }


@pytest.mark.parametrize("values", [[1, 2, 3], [1e-4, 1, 10], ["a", None, "a"], [True, "x", 2]])
def test_an_axis_of_the_parallel_coordinates(values: list[object]) -> None:
    axis = charts.dimension("<key>", values)
    assert axis["label"] == "&lt;key&gt;"
    low, high = axis["range"]
    assert all(low < place < high for place in axis["values"])
    places = [axis["values"].index(place) for place in axis["values"]]
    assert places == [values.index(value) for value in values]
    if "names" in axis:
        assert [axis["names"][i] for i in axis["values"]][:2] in (["a", "–"], ["true", "x"])
    elif axis["log"]:
        assert [10**place for place in axis["values"]] == pytest.approx(values)


def test_what_all_runs_have_is_left_out_though_one_never_began() -> None:
    """Of a job that was refused, the sweep's record has only what varies."""
    words = (["a=1", "lr=1"], ["a=1", "lr=2"])
    runs = [Run(Path(str(i)), overrides=given, composed=True) for i, given in enumerate(words)]
    refused = Run(Path("3"), overrides=["lr=x"])
    assert own_overrides([*runs, refused]) == ["lr=1", "lr=2", "lr=x"]
