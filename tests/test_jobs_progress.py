"""What a person sees of a sweep while it runs and at its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eqprop.sweep.closing import exit_status, failure_lines
from eqprop.sweep.glance import Glance, look
from eqprop.sweep.handles import Ended
from eqprop.sweep.job import Handle, Job, Outcome, State
from eqprop.sweep.progress import Watched, position


def outcome(number: int, state: State, reason: str | None = None) -> Outcome:
    job = Job(number, (), Path(f"/runs/{number}"), f"lr={number}")
    return Outcome(job, state, 0.5 if state == "done" else None, reason, 0, 3.2)


ALL = [outcome(2, "failed", "killed by SIGKILL"), outcome(0, "done"), outcome(1, "pruned", "bad")]


class Fake:
    """Each job runs for two polls."""

    capacity = 3

    def __init__(self) -> None:
        self.closed = False

    def start(self, job: Job) -> Handle:
        (found,) = (one for one in ALL if one.job == job)

        class Running(Ended):
            polls = 0

            def poll(self) -> Outcome:
                self.polls += 1
                return found if self.polls > 2 else None  # type: ignore[return-value]

        return Running(found)

    def close(self) -> None:
        self.closed = True


def run_all(live: bool) -> Watched:
    watched = Watched(Fake(), total=3, live=live)
    handles = [watched.start(one.job) for one in ALL]
    for _ in range(5):
        for handle in handles:
            handle.poll()
    watched.close()
    return watched


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    watched = run_all(live=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [f"job {n} started: lr={n}  /runs/{n}" for n in (2, 0, 1)]
    assert lines[3:] == [
        "job 2 failed after 3 s: lr=2  killed by SIGKILL",
        "job 0 done after 3 s: lr=0  objective 0.5000",
        "job 1 pruned after 3 s: lr=1  bad",
    ]
    assert watched.outcomes == ALL
    assert watched.launcher.closed  # type: ignore[attr-defined]


def test_moving_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all(live=True).outcomes == ALL
    assert "job 2 failed after 3 s: lr=2  killed by SIGKILL" in capsys.readouterr().out


def test_the_end() -> None:
    others = [*ALL, outcome(3, "interrupted", "interrupted by SIGTERM")]
    assert failure_lines(others) == [
        "job 2 (lr=2) failed: killed by SIGKILL; /runs/2",
        "job 3 (lr=3) interrupted: interrupted by SIGTERM; /runs/3",
    ]
    assert (exit_status(others), exit_status(ALL), exit_status(ALL[1:])) == (1, 1, 0)
    assert (exit_status([]), failure_lines([])) == (0, [])


def test_a_glance_at_a_running_job(tmp_path: Path) -> None:
    assert look(tmp_path) == Glance(0, None, None)
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("trainer:\n  epochs: 7\n")
    rows = [
        {"step": 1, "epoch": 1, "energy/free": 1.0},
        {"step": 9, "epoch": 3, "time/train_s": 1.0, "accuracy/test": 0.5},
        {"step": 12, "epoch": 4, "time/train_s": 1.0, "accuracy/validation": 0.75},
        {"step": 13, "epoch": 5, "energy/free": 1.0},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text("x" * 10_000 + "\n" + text + '{"step": 14, "epo')
    seen = look(tmp_path)
    assert seen == Glance(4, 7, 0.75)
    assert position(seen) == "epoch 4/7  75.00 %"
    assert look(tmp_path, 9).epochs == 9
    assert position(Glance()) == "starts"
