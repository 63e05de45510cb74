"""scripts/results_table.py: seeds together, the twin's seconds, the published figure, a page."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest
import results_table
from made_runs import make_run
from scripting import in_process, is_png, needs_matplotlib, run

from eqprop.report.evidence import load
from eqprop.report.heads import LABELS, heads
from eqprop.report.results import rows_of
from eqprop.report.results_page import curve
from eqprop.run.errors import UserError

HEADS = heads(results_table.CONF / "experiment")


def made(
    folder: Path,
    words: Sequence[str],
    accuracies: Sequence[float],
    seconds: float | Sequence[float] = 1.0,
    samples: int = 1000,
    validation: Sequence[float] = (),
    **hardware: object,
) -> Path:
    """A run of a command with these overrides and, epoch by epoch, these accuracies."""
    make_run(folder, seed=next((int(w[5:]) for w in words if w.startswith("seed=")), 1))
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(list(words)))
    rows = []
    for i, accuracy in enumerate(accuracies, 1):
        taken = seconds if isinstance(seconds, (int, float)) else seconds[i - 1]
        row = {"step": 10 * i, "epoch": i, "accuracy/test": accuracy, "time/train_s": taken,
               "throughput/examples_per_s": samples / taken}  # fmt: skip
        rows.append(row | ({"accuracy/validation": validation[i - 1]} if validation else {}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if hardware:
        found = {"hardware": hardware, "git": {"commit": "0123456789abcdef"}, "host": "secret-name"}
        (folder / "environment.json").write_text(json.dumps(found))
    return folder


def cells(text: str, heading: str = "") -> list[dict[str, str]]:
    """The rows of the first table, or of the first below a heading."""
    lines = text.partition(heading)[2].splitlines() if heading else text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    end = next((i for i, line in enumerate(lines) if i > start and line[:1] != "|"), len(lines))
    heads, _, *rows = [line.strip("| ").split(" | ") for line in lines[start:end]]
    return [dict(zip(heads, row, strict=True)) for row in rows]


def test_seeds_twins_and_published_figures(tmp_path: Path) -> None:
    name = "experiment=gaussian_mnist"
    last = [0.981, 0.985, 0.984]
    for seed, accuracy in enumerate(last):
        words = [name, f"seed={seed}", "paths.data=/data", "device=cpu", "device.threads=1"]
        made(tmp_path / f"{seed}-ep", words, [0.95, 0.99, accuracy], 3.0)
    made(tmp_path / "9-twin", ["estimator=backprop", name], [0.9, 0.97], 2.0)
    ep, twin = cells(in_process(results_table, tmp_path))
    assert ep["command"] == f"`{name}`"
    assert (ep["seeds"], ep["over backprop"]) == ("3", "1.50")
    assert ep["epochs"].startswith("3 of 50")
    error = 100 * statistics.stdev(last) / math.sqrt(3)
    assert ep["test accuracy, last epoch"] == f"{100 * statistics.mean(last):.2f} ± {error:.2f} %"
    assert ep["best epoch"] == "99.00 ± 0.00 %‡"  # the test set chose it
    assert "1.48 %" in ep["published"]
    assert (twin["command"], twin["published"]) == ("… `estimator=backprop`", "–")
    assert twin["test accuracy, last epoch"] == "97.00 %"


def test_the_best_epoch_is_the_one_that_validation_chose(tmp_path: Path) -> None:
    made(tmp_path / "a", ["model=hopfield"], [0.9, 0.92, 0.99], validation=[0.8, 0.95, 0.95])
    (row,) = cells(in_process(results_table, tmp_path, "--measure", "error"))
    assert (row["best epoch"], row["test error, last epoch"]) == ("8.00 %", "1.00 %")
    (row,) = cells(in_process(results_table, tmp_path, "--split", "validation"))
    assert row["validation accuracy, last epoch"] == "95.00 %"


def test_errors_are_what_is_missing_to_100(tmp_path: Path) -> None:
    made(tmp_path / "a", ["estimator=ep"], [0.9, 0.95])
    (row,) = cells(run("results_table.py", tmp_path, "--measure", "error"))
    assert row["test error, last epoch"] == "5.00 %"
    assert "over backprop" not in row  # there is no twin
    assert "is no folder" in run("results_table.py", tmp_path / "a" / "metrics.jsonl", status=2)


def page(tmp_path: Path, *arguments: object) -> str:
    files = "--record", tmp_path / "results.json", "--page", tmp_path / "results.md"
    in_process(results_table, *arguments, *files)
    return (tmp_path / "results.md").read_text()


@needs_matplotlib
def test_a_page_is_made_again_from_the_record_alone(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for estimator, seconds in (("ep", 6.0), ("backprop", 2.0)):
        words = ["experiment=rain_dhn_1h", *[f"estimator={estimator}"] * (estimator != "ep")]
        for seed in (1, 2):
            made(runs / f"{estimator}{seed}", [*words, f"seed={seed}"], [0.9, 0.96 + seed / 100],
                 seconds, cpu="A CPU", cores_logical=4, gpus=[])  # fmt: skip
    first = page(tmp_path, runs, "--busy")
    ep, twin = cells(first, "## Run")
    assert ep["test error, last epoch"] == "2.50 ± 0.50 %"
    assert ep["s an epoch"] == "6†"
    assert "over backprop" not in ep  # what other work slowed down makes no ratio
    assert ep["machine"] == twin["machine"] == "A"
    assert "A: A CPU, 4 of 4 cores" in first
    text = (tmp_path / "results.json").read_text()
    assert str(tmp_path) not in text
    assert "secret-name" not in text
    assert "0123456789ab" in text
    assert is_png(tmp_path / "results.png")
    assert page(tmp_path) == first
    assert page(tmp_path, runs, "--busy") == first  # the same runs once more
    shown = {row["command"].strip("`").partition("=")[2] for row in cells(first, "## Not run")}
    assert shown == HEADS.keys() - {"rain_dhn_1h"}


def test_timings_of_a_quiet_machine_replace_seconds_and_nothing_else(tmp_path: Path) -> None:
    made(tmp_path / "run" / "ep", ["experiment=hep_mnist"], [0.9, 0.95], 50.0, 1000)
    for name, twin, seconds in (("a", [], 1.0), ("b", ["estimator=backprop"], 0.5)):
        words = [
            "experiment=hep_mnist",
            *twin,
            "trainer.epochs=2",
            "trainer.eval_every=2",
            "dataset.limit=100",
        ]
        folder = tmp_path / "short" / name
        made(folder, words, [0.1, 0.1], [9.0, seconds], 100)
    (row,) = cells(in_process(results_table, tmp_path / "run", "--timing", tmp_path / "short"))
    assert row["test accuracy, last epoch"] == "95.00 %"
    # of 100 of 1000 samples, without the first epoch
    assert (row["s an epoch"], row["over backprop"]) == ("10", "2.00")


def test_seconds_of_two_machines_make_no_ratio(tmp_path: Path) -> None:
    gpus = {"gpus": [{"name": "A GPU"}], "cpu": "A CPU"}
    made(tmp_path / "a", ["model=hopfield"], [0.9], 4.0, **gpus)
    made(tmp_path / "b", ["model=hopfield", "estimator=backprop"], [0.9], 1.0, cpu="A CPU")
    ep, _ = cells(in_process(results_table, tmp_path))
    assert (ep["machine"], ep["over backprop"]) == ("A GPU", "–")


def test_more_epochs_win_and_seeds_count_once(tmp_path: Path) -> None:
    words = ["experiment=hep_mnist", "seed=1"]
    entry = {"command": words[:1], "kind": "reported", "seed": 1, "epochs": 50,
             "accuracy": {"test": [0.5, None, 0.7]}, "machine": "gone"}  # fmt: skip
    (tmp_path / "results.json").write_text(json.dumps({"runs": [entry]}))
    made(tmp_path / "runs" / "short", words, [0.6, 0.8])
    record = "--record", tmp_path / "results.json"
    in_process(results_table, tmp_path / "runs", *record)
    (row,) = rows_of(load(record[1]))
    assert (row.reached, row.runs[0].machine) == (3, "gone")
    assert curve(row) == ("test", [1, 3], [50.0, pytest.approx(30.0)])
    made(tmp_path / "runs" / "long", words, [0.6, 0.8, 0.9])
    in_process(results_table, tmp_path / "runs", *record)
    (row,) = rows_of(load(record[1]))
    assert row.runs[0].last("test") == 0.9  # of equals, what can be read again
    assert [entry.kind for entry in load(record[1])] == ["run"]


def test_what_was_reported_goes_when_as_long_a_run_of_that_seed_is_there(tmp_path: Path) -> None:
    known = {"command": ["experiment=hep_mnist"], "kind": "reported", "epochs": 2}
    others = [{**known, "seed": seed, "accuracy": {"test": [None, 0.1]}} for seed in (1, 7)]
    longer = {**known, "seed": 3, "accuracy": {"test": [None, None, 0.2]}}
    record = tmp_path / "results.json"
    record.write_text(json.dumps({"runs": [*others, longer]}))
    for seed in (3, 7):
        made(tmp_path / str(seed), ["experiment=hep_mnist", f"seed={seed}"], [0.6, 0.8])
    in_process(results_table, tmp_path, "--record", record)
    found = {(entry.kind, entry.seed) for entry in load(record)}
    assert found == {("reported", 1), ("reported", 3), ("run", 3), ("run", 7)}


@pytest.mark.parametrize("text", ["{", "[]", '{"runs": [{"command": [], "speed": 1}]}'])
def test_a_damaged_record_is_one_line_and_stays(text: str, tmp_path: Path) -> None:
    made(tmp_path / "a", [], [0.9])
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UserError, match=r"r.json is no record of results"):
        in_process(results_table, tmp_path, "--record", tmp_path / "r.json")
    assert (tmp_path / "r.json").read_text() == text


@pytest.mark.parametrize("name", HEADS)
def test_every_head_says_what_a_page_needs(name: str) -> None:
    head = HEADS[name]
    assert {"Source", "Published", "Measured here", "Time here", "Twin by backprop"} <= set(
        head.fields
    )
    order = [LABELS.index(label) for label in head.fields]
    assert order == sorted(order)
    assert head.time, head.fields["Time here"]
    assert head.epochs
    assert head.description


def test_a_timing_needs_no_evaluation_and_says_where_it_was_made(tmp_path: Path) -> None:
    words = ["experiment=hep_mnist"]
    made(tmp_path / "run", words, [0.9], 2000.0, 1000, cpu="One", cores_logical=2)
    timing = made(
        tmp_path / "short", [*words, "trainer.epochs=40", "dataset.limit=100"],
        [0.1, 0.1], 150.0, 100, cpu="Another", cores_logical=2,
    )  # fmt: skip
    rows = [json.loads(line) for line in (timing / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["accuracy/test"]
    (timing / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (row,) = cells(in_process(results_table, tmp_path / "run", "--timing", timing))
    assert row["s an epoch"] == "1,500"
    assert row["machine"] == "One, 2 of 2 cores; Another, 2 of 2 cores (seconds)"
