"""Reading runs in whatever state, and what repeats of a point are together."""

from __future__ import annotations

import json
import math
import os
import statistics
from pathlib import Path

import pytest
from made_runs import make_run, make_sweep, write_rows

from eqprop.report import curves
from eqprop.report.finding import find_runs
from eqprop.report.payload import own_overrides
from eqprop.report.points import differing, points_of
from eqprop.report.reading import Run, read_run
from eqprop.report.tolerant import flatten, parse_yaml
from eqprop.run.errors import UserError
from eqprop.run.lock import take_lock


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
        os.close(lock)


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


def test_a_configuration_without_measure() -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} {{p: *{a}, q: *{a}, r: *{a}}}\n"
        for a, b in zip("abcdefghijkl", "bcdefghijklm", strict=True)
    )
    assert len(flatten(parse_yaml(bomb))) <= 2000
    assert flatten(parse_yaml("a: &x {b: *x}"))  # a tree that holds itself
    assert flatten({1: {None: 2}}) == {"1.None": 2}


def test_runs_anywhere_below(tmp_path: Path) -> None:
    for name in ("b/10-x", "b/9-x", "a/deep/er"):
        make_run(tmp_path / name)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "b" / "9-x")
    runs, problems = find_runs(tmp_path)
    found = [os.path.relpath(os.path.realpath(run.folder), tmp_path) for run in runs]
    assert sorted(found) == ["a/deep/er", "b/10-x", "b/9-x"]
    assert problems == []


def test_the_tenth_job_comes_after_the_ninth(tmp_path: Path) -> None:
    for name in ("10-x", "9-x", "a"):
        make_run(tmp_path / name)
    assert [run.folder.name for run in find_runs(tmp_path)[0]] == ["9-x", "10-x", "a"]


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


def test_what_the_sweeper_saw(tmp_path: Path) -> None:
    """Its word counts where a job could not record its own end, and only there."""
    make_run(tmp_path / "0-good")
    make_run(tmp_path / "1-left", objective=None)
    make_run(tmp_path / "2-killed", "running")
    make_run(tmp_path / "3-hung", "interrupted", reason="SIGTERM")
    make_run(tmp_path / "5-own", "failed", reason="diverged at step 3")
    seen = [
        ("0-good", "done", None),
        ("1-left", "failed", "ended with status 0 but did not finish"),
        ("2-killed", "failed", "killed by SIGKILL"),
        ("3-hung", "running", None),
        ("3-hung", "failed", "hung: no end after 60 s"),
        ("4-never", "failed", "optimizer.lr: abc is no number"),
        ("5-own", "failed", "exit status 1"),
    ]
    lines = [
        {"kind": "job", "number": i, "folder": folder, "state": state, "reason": reason,
         "overrides": ["optimizer.lr=abc", "seed=3"]}
        for i, (folder, state, reason) in enumerate(seen)
    ]  # fmt: skip
    write_rows(tmp_path / "results.jsonl", [*lines, {"kind": "point", "point": 0, "mean": 0.5}])
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"kind": "job", "folder": "0-go')
    found = {run.folder.name: run for run in find_runs(tmp_path)[0]}
    assert {name: (run.state, run.failure) for name, run in found.items()} == {
        "0-good": ("done", None),
        "1-left": ("failed", "ended with status 0 but did not finish"),
        "2-killed": ("killed", "killed by SIGKILL"),
        "3-hung": ("failed", "hung: no end after 60 s"),
        "4-never": ("failed", "optimizer.lr: abc is no number"),
        "5-own": ("failed", "diverged at step 3"),
    }
    assert found["4-never"].config == {"optimizer.lr": "abc", "seed": 3}


def test_secrets_stay_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hush-hush-hush")
    folder = make_run(tmp_path / "a", "failed", reason="cannot log in with hush-hush-hush")
    with (folder / ".hydra" / "config.yaml").open("a") as file:
        file.write("tracking: {notes: hush-hush-hush}\n")
    run = read_run(folder)
    assert "hush-hush-hush" not in repr(run.config) + str(run.reason)


# ---------------------------------------------------------------------- repeats


def test_repeats_are_runs_that_differ_in_the_seed(tmp_path: Path) -> None:
    runs, _ = find_runs(make_sweep(tmp_path))
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
    runs = [read_run(make_run(tmp_path / "a"))]
    names = curves.names_of(runs)
    axes = curves.axes_of(runs, names)
    assert axes["accuracy/validation"] == "epoch"
    assert axes["energy/free"] == "step"
    assert names[0].startswith("accuracy/")
    assert names[-1].startswith("time/")


def test_relaxations_that_are_strange_are_left_out(tmp_path: Path) -> None:
    good = {"epoch": 1, "step": 5, "phase": "free", "energy": [3, math.nan, 1], "residual": [1]}
    odd = [{"epoch": 2}, {"energy": "x"}, {"energy": [], "residual": None}]
    write_rows(tmp_path / "curves.jsonl", [good, *odd])
    (found,) = curves.relaxations(read_run(tmp_path))
    assert found["energy"] == [[0, 1, 2], [3, None, 1]]
    json.dumps(found, allow_nan=False)


def test_what_all_runs_have_is_left_out_though_one_never_began() -> None:
    """Of a job that was refused, the sweep's record has only what varies."""
    words = (["a=1", "lr=1"], ["a=1", "lr=2"])
    runs = [Run(Path(str(i)), overrides=given, composed=True) for i, given in enumerate(words)]
    refused = Run(Path("3"), overrides=["lr=x"])
    assert own_overrides([*runs, refused]) == ["lr=1", "lr=2", "lr=x"]
