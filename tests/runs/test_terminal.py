"""Where a run's lines go and how it ends: terminals, pipes, Ctrl-C, poor environments."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shlex
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from running import QUICK, Process, Ran, start, status, train

LONG = (*QUICK[:2], "trainer.epochs=100000", "trainer.log_every=1")
TERMINAL = {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}


def on_a_terminal(*overrides: str, cwd: Path) -> Ran:
    """Run with a pseudo-terminal as its three standard streams; all that it shows is `out`."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r+b", buffering=0) as terminal:
        process = start(*overrides, cwd=cwd, env=TERMINAL)(terminal, terminal, terminal)
    shown = bytearray()
    with contextlib.suppress(OSError):  # the terminal's end
        while chunk := os.read(ours, 4096):
            shown += chunk
    os.close(ours)
    return Ran(process.wait(), shown.decode(), "", cwd)


BAR = "━"  # what a bar consists of, and the head of the table alone


def above_the_table(ran: Ran) -> str:
    assert "┏" in ran.out
    return ran.out.partition("┏")[0]


def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    ran = on_a_terminal(*QUICK, "trainer.epochs=2", "trainer.log_every=5", cwd=tmp_path)
    assert (ran.code, ran.status["state"]) == (0, "done")
    shown = above_the_table(ran)
    assert BAR in shown
    for words in ("epoch 2/2", "%", "energy", "examples/s"):
        assert words in shown
    plain = [line for line in shown.splitlines() if "epoch 1/2  train" in line]
    assert len(plain) == 1  # the epoch's own line passes above the bar
    assert "\x1b[?25h" in ran.out  # the cursor is back


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_as_one_wants_it(terminal: bool, tmp_path: Path) -> None:
    """`trainer.progress` set to what would not be chosen."""
    if terminal:
        ran = on_a_terminal(*QUICK, "trainer.progress=false", cwd=tmp_path)
        assert "\x1b" not in above_the_table(ran)
        assert BAR not in above_the_table(ran)
    else:
        ran = train(*QUICK, "trainer.progress=true", cwd=tmp_path)
    assert ran.code == 0
    assert "epoch 1/1  train" in ran.out


def test_the_table_of_layers_goes_into_a_pipe_and_the_log(tmp_path: Path) -> None:
    ran = train(*QUICK, "trainer.summary=true", cwd=tmp_path).succeeded()
    table = ran.out.partition("epoch 1/1")[0].splitlines()
    assert [line.split()[0] for line in table[-5:]] == ["layer", "0", "1", "2", "total"]
    assert "\x1b" not in ran.out
    logged = (ran.folder / "run.log").read_text()
    assert all(f": {line}\n" in logged for line in table)


@contextlib.contextmanager
def running(*overrides: str, cwd: Path, cold: bool = False) -> Iterator[tuple[Process, IO[bytes]]]:
    """A run that goes on, and the file that all it says goes to; killed in the end."""
    with open(os.devnull, "rb") as nothing, open(cwd / "said", "w+b") as said:
        process = start(*overrides, cwd=cwd, cold=cold)(nothing, said, said)
        try:
            yield process, said
        finally:
            process.send(signal.SIGKILL)


def wait_for_rows(cwd: Path, process: Process) -> Path:
    """Wait until the run has logged; returns its folder."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for file in cwd.glob("outputs/*/*/metrics.jsonl"):
            if file.stat().st_size:
                return file.parent
        time.sleep(0.05)
    raise AssertionError((cwd / "said").read_text())


@pytest.mark.parametrize("tracking", ["none", "wandb_offline"])
def test_ctrl_c(tracking: str, tmp_path: Path) -> None:
    with running(*LONG, f"tracking={tracking}", cwd=tmp_path) as (process, said):
        folder = wait_for_rows(tmp_path, process)
        process.send(signal.SIGINT)
        assert process.wait() == 130
        said.seek(0)
        text = said.read().decode()
    assert "Traceback" not in text
    last = text.splitlines()[-1]
    assert last.startswith("error: interrupted by SIGINT; go on with: python ")
    words = shlex.split(last.partition("go on with: ")[2])
    assert words[1].endswith("scripts/train.py")
    assert words[2:] == [f"resume={folder.relative_to(tmp_path)}"]
    found = status(folder)
    assert (found["state"], found["exit_code"]) == ("interrupted", 130)
    assert found["end"] is not None


def test_ctrl_c_ends_a_multirun(tmp_path: Path) -> None:
    with running("-m", *LONG, "tracking=none", "seed=1,2,3", cwd=tmp_path) as (process, said):
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("outputs/multirun/*/*/0-*/metrics.jsonl")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send(signal.SIGINT)
        assert process.wait() == 130
        said.seek(0)
        assert "Traceback" not in said.read().decode()
    (folder,) = {path.parent for path in tmp_path.rglob("status.json")}
    assert status(folder)["state"] == "interrupted"


def test_a_reader_that_has_had_enough(tmp_path: Path) -> None:
    """``… | head -1``: the run goes on to its end, which is what its folder is for."""
    reader, writer = os.pipe()
    with open(os.devnull, "rb") as nothing, open(tmp_path / "errors", "w+b") as err:
        with os.fdopen(writer, "wb") as out:
            run = start(*QUICK, "trainer.epochs=30", cwd=tmp_path, cold=True)(nothing, out, err)
        with os.fdopen(reader, "rb") as lines:
            assert lines.readline().startswith(b"run ")
        code = run.wait()
        err.seek(0)
        said = err.read().decode()
    assert (code, said) == (0, "")
    (folder,) = (path.parent for path in tmp_path.rglob("status.json"))
    assert status(folder)["state"] == "done"
    assert len(re.findall(": epoch ", (folder / "run.log").read_text())) == 30


def test_a_poor_environment(tmp_path: Path) -> None:
    """No home, nothing but ASCII to print, a folder with a space and an accent."""
    cwd = tmp_path / "mes données"
    cwd.mkdir()
    poor = {"HOME": None, "LANG": None, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "TERM": "dumb"}
    ran = train(*QUICK[:3], "name='été'", cwd=cwd, env=poor, cold=True).succeeded()
    assert ran.status["state"] == "done"
    assert "-ete-" in ran.folder.name
    assert r"mes donn\xe9es" in ran.out  # told as well as it can be
    assert "run.log" in {path.name for path in ran.folder.iterdir()}
    assert len(ran.rows) == 1


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    outputs = f"paths.outputs={tmp_path}/outputs"
    with (
        running(*QUICK, outputs, cwd=tmp_path / "a") as (first, _),
        running(*QUICK, outputs, cwd=tmp_path / "b") as (second, _),
    ):
        assert (first.wait(), second.wait()) == (0, 0)
    folders = {path.parent for path in (tmp_path / "outputs").rglob("status.json")}
    assert len(folders) == 2
    assert {status(folder)["state"] for folder in folders} == {"done"}


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    shared = "hydra.run.dir=outputs/a/b"
    with running(*LONG, "tracking=none", shared, cwd=tmp_path) as (process, _):
        folder = wait_for_rows(tmp_path, process)
        refused = train(*QUICK, shared, cwd=tmp_path)
        assert refused.code == 2
        assert "outputs/a/b" in refused.error
        assert status(folder)["state"] == "running"
        process.send(signal.SIGINT)
        assert process.wait() == 130
