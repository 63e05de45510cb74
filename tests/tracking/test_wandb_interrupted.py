"""Weights & Biases online: runs and servers that fail on the way, seen from the server."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from interrupted import before_step, with_code
from running import Ran, environment, train
from wandb_server import Answer, WandbServer, serving
from wandb_store import RUN, StoredRun, is_whole

pytest.importorskip("wandb")


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with serving() as server:
        yield server


# runs that end otherwise

DIVERGE = before_step(20, "session.network.W[0].weight.data.fill_(float('nan'))")


def test_a_diverged_run_is_a_failed_one(server: WandbServer, tmp_path: Path) -> None:
    ran = with_code(DIVERGE, *RUN, cwd=tmp_path, env=server.variables)
    assert ran.code == 1
    assert server.run.exits == [1]
    assert [row["step"] for row in server.run.history] == [row["step"] for row in ran.rows]
    assert ran.rows[-1]["step"] >= 13


def stopped(step: int, *arguments: str, cwd: Path, server: WandbServer, how: str) -> Ran:
    """A run to which a signal comes in the middle of a step."""
    wait = "while os.path.exists('wait'):\n    time.sleep(0.05)"
    code = before_step(step, f"{wait}\nos.kill(os.getpid(), signal.SIG{how})")
    return with_code(code, *arguments, cwd=cwd, env=server.variables)


def test_stopped_and_resumed_it_is_one_run(server: WandbServer, tmp_path: Path) -> None:
    ran = stopped(17, *RUN, cwd=tmp_path, server=server, how="TERM")
    assert ran.code == 143
    assert server.run.exits == [130]
    before = len(server.run.history)
    assert server.run.history[-1]["step"] == 16
    again = train("resume=auto", *RUN, cwd=tmp_path, env=server.variables).succeeded()
    is_whole(server.run, again.folder)
    assert server.run.exits == [130, 0]
    assert len(server.run.history) > before
    models = [a for a in server.artifacts if a.input["artifactTypeName"] == "model"]
    assert len(models) == 2
    assert server.unknown == []


def test_killed_before_its_rows_have_come_it_is_whole(server: WandbServer, tmp_path: Path) -> None:
    server.fault = lambda path, body: (500, "") if b"wandb-history" in body else None
    stopped(20, *RUN, cwd=tmp_path, server=server, how="KILL")
    assert server.run.history == []
    server.fault = lambda path, body: None
    again = train("resume=auto", *RUN, cwd=tmp_path, env=server.variables).succeeded()
    is_whole(server.run, again.folder)


def test_killed_after_rows_that_come_again_it_is_whole(server: WandbServer, tmp_path: Path) -> None:
    """The server has rows of step 14 and later, the checkpoint is of step 13."""
    (wait := tmp_path / "wait").touch()

    def watch(path: str, body: bytes) -> Answer | None:
        if b'\\"step\\":16' in body:
            wait.unlink()
        return None

    server.fault = watch
    stopped(20, *RUN, cwd=tmp_path, server=server, how="KILL")
    assert server.run.history[-1]["step"] >= 16
    server.fault = lambda path, body: None
    again = train("resume=auto", *RUN, cwd=tmp_path, env=server.variables).succeeded()
    is_whole(server.run, again.folder)


def test_a_run_of_that_name_is_not_overwritten(server: WandbServer, tmp_path: Path) -> None:
    server.runs["a"] = StoredRun({"name": "a", "project": "eqprop"})
    ran = train(*RUN, cwd=tmp_path, env=server.variables)
    assert ran.code == 0
    (line,) = (line for line in ran.out.splitlines() if "recorded offline" in line)
    assert "already exists" in line
    assert server.run.streams == {}
    assert len(list(tmp_path.glob("outputs/wandb/offline-run-*/run-a.wandb"))) == 1


# a server that fails on the way

IMPATIENT = """
from eqprop.tracking import wandb_session as session
session.INIT_TIMEOUT = session.FINISH_TIMEOUT = session.GRACE = 3.0
session.ANSWER_TIMEOUT = 3.0
from eqprop.cli.main import run
run()
"""


@pytest.mark.parametrize("failing", [True, False], ids=["fails", "hangs"])
@pytest.mark.parametrize("when", ["before", "while", "after"])
def test_a_server_that_fails_costs_a_bounded_wait_and_one_warning(
    when: str, failing: bool, server: WandbServer, tmp_path: Path
) -> None:
    """Before, while or after the run begins there."""
    (script := tmp_path / "impatient.py").write_text(IMPATIENT)
    ended, broken = threading.Event(), threading.Event()

    def fault(path: str, body: bytes) -> Answer | None:
        asked = path == "/graphql" if when == "before" else b"mutation UpsertBucket" in body
        if broken.is_set() or (asked and when != "after"):
            broken.set()
            if not failing:
                ended.wait(60)
            return 500, "broken"
        if asked:
            broken.set()
        return None

    server.fault = fault
    variables = {**server.variables, "WANDB_HTTP_TIMEOUT": "3"}
    try:
        ran = train(*RUN, cwd=tmp_path, env=variables, script=script)
    finally:
        ended.set()
    assert (ran.code, ran.err) == (0, ""), ran.out
    assert ran.rows[-1]["step"] == 39
    (warning,) = (line for line in ran.out.splitlines() if line.startswith("warning"))
    if when != "after":
        assert "recorded offline" in warning
        return
    assert "has not taken everything" in warning
    server.fault = lambda path, body: None
    command = [sys.executable, "-m", *warning.partition("with: ")[2].split()]
    variables = environment(server.variables)
    subprocess.run(command, cwd=tmp_path, env=variables, check=True, capture_output=True)
    is_whole(server.run, ran.folder)
    assert server.run.exits == [0]
