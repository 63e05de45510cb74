"""Owners, clocks, networks and memory that fail under a run: one clear line, and nothing lost."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
from interrupted import RUN, alone, before_step, with_code
from running import QUICK, rows, status, train, untimed

from eqprop.cli.command import describe
from eqprop.run.folder import RunFolder
from eqprop.run.lock import is_alive


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    train(*RUN, "hydra.run.dir=a", cwd=tmp_path).succeeded()
    folder = RunFolder.claim(tmp_path / "a", resume=True)
    try:
        assert is_alive(tmp_path / "a")
        before = status(tmp_path / "a")
        for command in (["resume=a"], ["resume=auto", *RUN[:2], *RUN[3:], "hydra.run.dir=a"]):
            ran = train(*command, "trainer.epochs=9", cwd=tmp_path)
            assert ran.code == 2
            owner = f"is in use by process {os.getpid()} on {socket.gethostname()}"
            assert owner in ran.error
        assert status(tmp_path / "a") == before
    finally:
        folder.finish("interrupted")
    assert not is_alive(tmp_path / "a")


def test_a_dead_run_is_told_from_a_living_one(tmp_path: Path) -> None:
    script = tmp_path / "dead.py"
    script.write_text(
        "import os, signal, sys\n"
        "from eqprop.training.loop import Training\n"
        "def dying(self):\n"
        "    from eqprop.run.lock import is_alive\n"
        "    assert is_alive('a')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Training.fit = dying\n"
        "from eqprop.cli.main import run\n"
        "run()\n"
    )
    assert train(*QUICK, "hydra.run.dir=a", cwd=tmp_path, script=script).code == -signal.SIGKILL
    assert status(tmp_path / "a")["state"] == "running"
    assert not is_alive(tmp_path / "a")
    assert not is_alive(tmp_path)


def test_a_clock_that_jumps(tmp_path: Path) -> None:
    jump = "real = time.__dict__.setdefault('real', time.time)\n"
    jump += "time.time = lambda step=session.step: real() - 1e7 * (step % 3)"
    ran = with_code(before_step(range(100), jump), *RUN, "hydra.run.dir=a", cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert untimed(rows(tmp_path / "a")) == untimed(rows(alone()))
    assert all(0 < r["time/train_s"] < 60 for r in rows(tmp_path / "a") if "time/train_s" in r)


def test_wandb_online_with_a_key_and_a_server_that_never_answers(tmp_path: Path) -> None:
    impatient = "from eqprop.tracking import wandb_session\nwandb_session.INIT_TIMEOUT = 2.0\n"
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        env = {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": f"http://127.0.0.1:{port}"}
        ran = with_code(impatient, *QUICK[:3], "tracking=wandb_online", cwd=tmp_path, env=env)
    assert ran.code == 0
    warnings = [line for line in ran.out.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert "this run is recorded offline" in warnings[0]
    assert ran.status["state"] == "done"
    assert list((tmp_path / "outputs" / "wandb").glob("offline-run-*"))


def test_wandb_s_service_killed_in_the_middle(tmp_path: Path) -> None:
    kill = "import psutil\n[child.kill() for child in psutil.Process().children(recursive=True)]"
    ran = with_code(before_step(8, kill), *QUICK[:3], "trainer.log_every=1", cwd=tmp_path)
    assert ran.code == 0
    assert "Traceback" not in ran.out + ran.err
    assert len([line for line in ran.out.splitlines() if "warning" in line]) == 1
    assert (ran.status["state"], len(ran.rows)) == ("done", 14)


def test_out_of_memory(tmp_path: Path) -> None:
    ran = train(*QUICK, "model.hidden=[1000000000,1000000000]", cwd=tmp_path)
    assert ran.code == 1
    assert ran.error.startswith("error: out of memory (")
    assert "lower dataset.batch_size" in ran.error
    assert ran.status["state"] == "failed"
    assert not (ran.folder / "checkpoints" / "last.pt").exists()


def test_out_of_address_space_in_the_middle(tmp_path: Path) -> None:
    ran = with_code(before_step(20, "bytearray(1 << 62)"), *RUN, "hydra.run.dir=a", cwd=tmp_path)
    assert ran.code == 1
    assert "out of memory" in ran.error
    train("resume=a", cwd=tmp_path).succeeded()


@pytest.mark.parametrize("name", ["OutOfMemoryError", "MemoryError"])
def test_out_of_memory_as_others_say_it(name: str) -> None:
    """torch's own error of a GPU is known by its name: nothing here imports torch."""
    error = type(name, (RuntimeError,), {})("CUDA out of memory.\nTried to allocate")
    line = describe(error if name.startswith("Out") else MemoryError("no room"))
    assert line.startswith("out of memory (")
    assert "dataset.batch_size" in line
    assert "\n" not in line
