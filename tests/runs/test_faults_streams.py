"""Standard streams that are closed, full or not read, and the poorest surroundings."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from interrupted import RUN, before_step
from rich.console import Console
from running import QUICK, SCRIPT, TIMEOUT, environment, rows, start, status, train

from eqprop.run.streams import LastingStream


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "<&- >&-"])
def test_streams_that_are_closed(closed: str, tmp_path: Path) -> None:
    words = [sys.executable, "-W", "error", str(SCRIPT), *QUICK, "hydra.run.dir=a"]
    command = f"{shlex.join(words)} {closed}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    went_on(tmp_path / "a", 1)


def test_streams_that_are_closed_get_a_place() -> None:
    """Else the next file that is opened would be standard output to somebody's print."""
    code = """if True:
        import os, sys
        for number in range(3):
            os.close(number)
        sys.stdin = sys.stdout = sys.stderr = None
        from eqprop.run.streams import prepare_streams
        prepare_streams()
        print("to nobody", flush=True)
        print("to nobody", file=sys.stderr, flush=True)
        found = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
        sys.exit(sys.stdin.read() != "" or found != ["/dev/null"] * 3)
        """
    done = subprocess.run([sys.executable, "-c", code], env=environment({}), timeout=TIMEOUT)
    assert done.returncode == 0


def went_on(folder: Path, epochs: int) -> None:
    """The run came to its end, and its own files know all of it."""
    assert status(folder)["state"] == "done"
    assert f"epoch {epochs}/{epochs}" in (folder / "run.log").read_text()
    assert rows(folder)[-1]["epoch"] == epochs


@contextmanager
def full() -> Iterator[IO[bytes]]:
    with open("/dev/full", "wb") as stream:
        yield stream


@contextmanager
def never_read() -> Iterator[IO[bytes]]:
    """A pipe whose reader has gone, as of ``| true``."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stream:
        yield stream


@pytest.mark.parametrize("output", [full, never_read])
@pytest.mark.parametrize("progress", ["null", "true"])
def test_an_output_that_takes_nothing(output: Any, progress: str, tmp_path: Path) -> None:
    command = (*RUN, f"trainer.progress={progress}", "hydra.run.dir=a")
    with open(os.devnull, "rb") as nothing, open(tmp_path / "err", "w+b") as err:
        with output() as out:
            process = start(*command, cwd=tmp_path)(nothing, out, err)
        code = process.wait()
        err.seek(0)
        assert (code, err.read()) == (0, b"")
    went_on(tmp_path / "a", 3)


@pytest.mark.parametrize("output", [full, never_read])
def test_what_is_still_in_the_buffer_at_the_end(output: Any, tmp_path: Path) -> None:
    """Nothing failed before: the interpreter's own end would say so, in words of its own."""
    with open(os.devnull, "rb") as nothing, open(tmp_path / "err", "w+b") as err:
        with output() as out:
            process = start("--cfg", "job", cwd=tmp_path)(nothing, out, err)
        code = process.wait()
        err.seek(0)
        assert (code, err.read()) == (0, b"")


@pytest.mark.parametrize("output", [full, never_read])
def test_a_table_that_nobody_takes(output: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From then on what is printed goes nowhere."""
    with output() as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", write_through=True)
        monkeypatch.setattr(sys, "stdout", LastingStream(text))
        console = Console()
        for _ in range(2):
            console.print("an accuracy")
        assert Path(f"/proc/self/fd/{text.fileno()}").resolve() == Path(os.devnull)
        text.detach()


@pytest.mark.parametrize("buffered", [False, True])
def test_a_stream_that_outlives_its_reader(buffered: bool) -> None:
    """Whether it is the write that fails, or a later flush."""
    with never_read() as pipe:
        binary: Any = pipe if buffered else io.FileIO(pipe.fileno(), "w", closefd=False)
        text = io.TextIOWrapper(binary, encoding="utf-8", write_through=True)
        lasting = LastingStream(text)
        for _ in range(2):
            assert lasting.write("a line\n") == 7
            lasting.flush()
        assert Path(f"/proc/self/fd/{text.fileno()}").resolve() == Path(os.devnull)
        text.detach()


def test_standard_error_that_takes_nothing(tmp_path: Path) -> None:
    """The one line of an error is lost with it; the exit status and the log are not."""
    code = before_step(5, "raise RuntimeError('on purpose')")
    script = tmp_path / "raising.py"
    script.write_text(f"{code}\nfrom eqprop.cli.main import run\nrun()\n")
    with open(os.devnull, "rb") as nothing, open(tmp_path / "out", "w+b") as out, full() as err:
        command = (*RUN, "hydra.run.dir=a")
        process = start(*command, cwd=tmp_path, script=script)(nothing, out, err)
    assert process.wait() == 1
    assert "on purpose" in (tmp_path / "a" / "run.log").read_text()
    assert status(tmp_path / "a")["state"] == "failed"


def test_without_a_home_and_in_the_plainest_locale(tmp_path: Path) -> None:
    env = {"HOME": None, "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = train(*RUN, "name='é'", cwd=tmp_path, env=env, cold=True)
    assert (ran.code, ran.err) == (0, "")
    assert ran.status["state"] == "done"
