"""scripts/plot_runs.py: what it reads for its figure. No picture is judged."""

from __future__ import annotations

import json
from pathlib import Path

from scripting import is_png, needs_matplotlib, run

from eqprop.run.reading import read_run


def make_run(folder: Path, lr: float, split: str = "test") -> Path:
    """A run's folder as training leaves it, its last line torn."""
    rows = [
        {"step": 10 * epoch, "epoch": epoch, f"accuracy/{split}": 0.8 + epoch / 100,
         "time/train_s": 1.0}
        for epoch in range(1, 6)
    ]  # fmt: skip
    (folder / ".hydra").mkdir(parents=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines + '{"step": 60, "epo')
    (folder / ".hydra" / "config.yaml").write_text(
        "name: null\nmodel: {_target_: eqprop.network.Gaussian}\n"
        "dynamics: {_target_: eqprop.relaxation.Euler, n_relax: 20}\n"
        f"dataset: {{_target_: eqprop.data.Digits}}\noptimizer: {{lr: {lr}}}\n"
    )
    return folder


@needs_matplotlib
def test_runs_in_one_figure(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, lr) for name, lr in (("a", 0.1), ("b", 0.2))]
    run("plot_runs.py", *runs, "--out", tmp_path / "docs" / "runs.png")
    assert is_png(tmp_path / "docs" / "runs.png")


def test_runs_are_read_and_told_apart(tmp_path: Path) -> None:
    from plot_runs import accuracy, told_apart

    folders = [make_run(tmp_path / name, lr) for name, lr in (("a", 0.1), ("b", 0.2))]
    runs = [read_run(folder) for folder in folders]
    assert accuracy(runs[0], None) == (
        "test",
        [(epoch, 0.8 + epoch / 100) for epoch in range(1, 6)],
    )
    label = "Gaussian, Euler 20, Digits"
    assert told_apart(runs) == [f"{label}, lr 0.1", f"{label}, lr 0.2"]
    assert told_apart(runs[:1]) == [label]


def test_a_test_set_measured_once_gives_way_to_validation(tmp_path: Path) -> None:
    from plot_runs import accuracy

    folder = make_run(tmp_path / "a", 0.1, split="validation")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('\n{"step": 60, "epoch": 6, "accuracy/test": 0.9}\n')
    assert accuracy(read_run(folder), None)[0] == "validation"
    assert accuracy(read_run(folder), "test") == ("test", [(6, 0.9)])


def test_a_folder_without_a_run_is_one_line(tmp_path: Path) -> None:
    assert "is no run's folder" in run("plot_runs.py", tmp_path, "--out", "x.png", status=2)
    (tmp_path / "metrics.jsonl").write_text("")
    assert "no test accuracy" in run("plot_runs.py", tmp_path, "--out", "x.png", status=2)
