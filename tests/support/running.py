"""Starts the program as a person does, and reads what the run leaves behind."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "train.py"
QUICK = ("dataset=digits", "model.hidden=[16]", "trainer.epochs=1", "tracking=none")
"""A run of a second: 1 298 digits for training, 144 for validation, 355 for testing."""
TIMEOUT = 120.0  # seconds


@dataclass(frozen=True)
class Ran:
    """A program that has ended, and the directory it ran in."""

    code: int
    out: str
    err: str
    cwd: Path

    @cached_property
    def folders(self) -> list[Path]:
        """The folders of all runs below ``outputs``."""
        return sorted(path.parent for path in (self.cwd / "outputs").rglob("status.json"))

    @property
    def folder(self) -> Path:
        """The folder of the only run."""
        (folder,) = self.folders
        return folder

    @property
    def rows(self) -> list[dict[str, Any]]:
        return rows(self.folder)

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The rows that end an epoch."""
        return [row for row in self.rows if "time/train_s" in row]

    @property
    def status(self) -> dict[str, Any]:
        return status(self.folder)

    @property
    def error(self) -> str:
        """The only line on standard error, of a program that printed no traceback."""
        assert "Traceback" not in self.out + self.err
        (line,) = self.err.splitlines()
        return line

    def succeeded(self) -> Ran:
        """Itself, if it ended as it should and had nothing to complain about."""
        assert (self.code, self.err) == (0, ""), self.out + self.err
        return self


@dataclass(frozen=True)
class Process:
    pid: int
    ended: Callable[[], int]

    def wait(self, timeout: float = TIMEOUT) -> int:
        """How it ended; killed if that takes too long."""
        alarm = threading.Timer(timeout, lambda: self.send(signal.SIGKILL))
        alarm.start()
        try:
            return self.ended()
        finally:
            alarm.cancel()
            alarm.join()

    def send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


def train(
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str | None] | None = None,
    cold: bool = False,
    script: Path = SCRIPT,
    timeout: float = TIMEOUT,
) -> Ran:
    """Run ``python scripts/train.py ARGUMENTS`` in ``cwd`` with nothing on its standard input.

    ``cold`` starts a new interpreter; else a fork of one that has imported everything.
    """
    with (
        open(os.devnull, "rb") as nothing,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        process = start(*arguments, cwd=cwd, env=env, cold=cold, script=script)(nothing, out, err)
        code = process.wait(timeout)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return Ran(code, texts[0], texts[1], cwd)


def start(
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str | None] | None = None,
    cold: bool = False,
    script: Path = SCRIPT,
) -> Callable[[IO[bytes], IO[bytes], IO[bytes]], Process]:
    """The same, returning once it has started; called with its three standard streams."""
    variables = environment(env or {})

    def with_streams(*streams: IO[bytes]) -> Process:
        if not cold:
            return _server().start(script, list(arguments), cwd, variables, streams)
        command = [sys.executable, "-W", "error", str(script), *arguments]
        child = subprocess.Popen(
            command, cwd=cwd, env=variables, stdin=streams[0], stdout=streams[1], stderr=streams[2]
        )
        return Process(child.pid, child.wait)

    return with_streams


def environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """A plain environment, nobody's settings in it; a change to None takes a variable away."""
    plain: dict[str, str | None] = {
        "PYTHONPATH": str(ROOT),  # this checkout, whatever is installed
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(_home()),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        **changes,
    }
    return {name: value for name, value in plain.items() if value is not None}


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl``, read as strict JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (folder / "metrics.jsonl").read_text()
    assert text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def status(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "status.json").read_text()))


def untimed(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what a clock decides."""
    clock = ("time/", "throughput/")
    return [{k: v for k, v in row.items() if not k.startswith(clock)} for row in found]


def wandb_runs(cwd: Path) -> list[dict[str, Any]]:
    """What W&B's own reader finds of each run: its header and its summary, in one mapping."""

    def inspect(file: Path, *options: str) -> str:
        command = [sys.executable, "-m", "wandb", "leet", "inspect", *options, "--json", str(file)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    found = []
    for file in sorted(cwd.glob("outputs/wandb/offline-run-*/*.wandb")):
        records = [json.loads(line) for line in inspect(file).splitlines()]
        (header,) = (record["run"] for record in records if record["type"] == "run")
        found.append({**header, **json.loads(inspect(file, "--summary"))})
    return found


class _Server:
    def __init__(self) -> None:
        mine, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, str(Path(__file__).with_name("warm.py"))]
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())], env=environment({}), pass_fds=[theirs.fileno()]
            )
        self._socket, self._answers = mine, mine.makefile("r")
        atexit.register(self.stop)

    def start(
        self, script: Path, arguments: list[str], cwd: Path, env: Any, streams: Any
    ) -> Process:
        job = {"script": str(script), "arguments": arguments, "cwd": str(cwd), "env": env}
        pid = self._ask(job, [stream.fileno() for stream in streams])
        return Process(pid, lambda: self._ask({"wait": pid}, []))

    def stop(self) -> None:
        self._answers.close()
        self._socket.close()
        self._process.wait()

    def _ask(self, request: Any, descriptors: list[int]) -> int:
        socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
        return int(self._answers.readline())


@cache
def _server() -> _Server:
    return _Server()


@cache
def _home() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="eqprop-home-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def python(code: str, *arguments: object, **options: object) -> subprocess.Popen:
    """A process of Python's own that runs ``code``, with pipes to and from it."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **options,
    )


def git(folder: Path, *arguments: str) -> str:
    """What git says to a command in ``folder``."""
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    command = ["git", *who, *arguments]
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()
