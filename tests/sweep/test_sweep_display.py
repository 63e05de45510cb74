"""What a person sees of a sweep while it runs and at its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eqprop.sweep.display import Display
from eqprop.sweep.job import Job, Outcome
from eqprop.sweep.sweeper import accuracies

ENDS = {
    2: Outcome("failed", None, "killed by SIGKILL", -9, 3.2),
    0: Outcome("done", 0.5, None, 0, 3.2),
    1: Outcome("pruned", None, "bad", 143, 3.2),
}


def show(live: bool) -> None:
    jobs = [Job(number, f"lr={number}", Path(f"/runs/{number}"), (), "", {}) for number in ENDS]
    with Display(total=3, live=live) as display:
        for job in jobs:
            display.started(job)
            display.moved(job, 3, 0.75)
        for job in jobs:
            display.ended(job, ENDS[job.number])


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show(live=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [f"job {n} started: lr={n}  /runs/{n}" for n in (2, 0, 1)]
    assert lines[3:] == [
        "job 2 failed after 3 s: lr=2  killed by SIGKILL",
        "job 0 done after 3 s: lr=0  objective 0.5000",
        "job 1 pruned after 3 s: lr=1  bad",
    ]


def test_moving_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show(live=True)
    assert "job 2 failed after 3 s: lr=2  killed by SIGKILL" in capsys.readouterr().out


def test_the_accuracies_of_a_running_job(tmp_path: Path) -> None:
    assert accuracies(tmp_path) == {}
    rows = [
        {"step": 1, "epoch": 1, "energy/free": 1.0},
        {"step": 9, "epoch": 3, "time/train_s": 1.0, "accuracy/test": 0.5},
        {"step": 12, "epoch": 4, "accuracy/validation": 0.75, "accuracy/test": 0.5},
        {"step": 12, "epoch": 5, "accuracy/validation": None},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 14, "accuracy/validation": 0.7')
    assert accuracies(tmp_path) == {3: 0.5, 4: 0.75}
