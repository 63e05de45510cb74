"""scripts/results_table.py: seeds together, the twin's seconds, what a paper has published."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import results_table
from made_runs import make_run
from scripting import in_process, run


def made(folder: Path, words: list[str], accuracies: list[float], seconds: float) -> None:
    """A run of a command with these overrides and, epoch by epoch, these accuracies."""
    make_run(folder)
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(words))
    rows = [
        {"step": 10 * i, "epoch": i, "accuracy/test": a, "time/train_s": seconds}
        for i, a in enumerate(accuracies, 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def cells(text: str) -> list[dict[str, str]]:
    heads, _, *lines = [line.strip("| ").split(" | ") for line in text.splitlines()]
    return [dict(zip(heads, line, strict=True)) for line in lines]


def test_seeds_twins_and_published_figures(tmp_path: Path) -> None:
    name = "experiment=gaussian_mnist"
    last = [0.981, 0.985, 0.984]
    for seed, accuracy in enumerate(last):
        words = [name, f"seed={seed}", "paths.data=/data"]
        made(tmp_path / f"{seed}-ep", words, [0.95, 0.99, accuracy], 3.0)
    made(tmp_path / "9-twin", [name, "estimator=backprop"], [0.9, 0.97], 2.0)
    ep, twin = cells(in_process(results_table, tmp_path))
    assert ep["command"] == f"`{name}`"
    assert (ep["seeds"], ep["epochs"], ep["over backprop"]) == ("3", "3", "1.50")
    error = 100 * statistics.stdev(last) / math.sqrt(3)
    assert ep["test accuracy, last"] == f"{100 * statistics.mean(last):.2f} ± {error:.2f} %"
    assert ep["test accuracy, best"] == "99.00 ± 0.00 %"
    assert "98.52 %" in ep["published"]
    assert (twin["published"], twin["over backprop"]) == ("–", "1.00")
    assert twin["test accuracy, last"] == "97.00 %"


def test_errors_are_what_is_missing_to_100(tmp_path: Path) -> None:
    made(tmp_path / "a", ["estimator=ep"], [0.9, 0.95], 1.0)
    (row,) = cells(run("results_table.py", tmp_path, "--measure", "error"))
    assert row["test error, last"] == "5.00 %"
    assert "over backprop" not in row  # there is no twin
    assert "is no folder" in run("results_table.py", tmp_path / "a" / "metrics.jsonl", status=2)
