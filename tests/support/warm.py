"""Runs scripts many times and pays for importing torch once: each run is a fork of this process.

``python warm.py FD`` serves a socket: a job comes with three descriptors (its standard streams) and
is answered by its process id; ``{"wait": pid}`` is answered by how that process ended. A child goes
on to the end of this file, so that it ends as any Python program does. The jobs of a multirun are
forks too: of a process that is forked before the multirun begins.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from types import SimpleNamespace
from typing import Any, TextIO

WANTED = ("sklearn.datasets", "torch._dynamo", "wandb", "eqprop.cli.build", "eqprop.cli.main")
"""What runs need and what takes long to import."""


def serve(connection: socket.socket) -> dict[str, Any]:
    """Answer requests for ever, or end with the socket; returns in the children, with the job."""
    while True:
        message, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
        if not message:
            os._exit(0)
        job: dict[str, Any] = json.loads(message)
        if "wait" in job:
            pid, status = os.waitpid(job["wait"], job.get("flags", 0))
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            began, begins = os.pipe()
            answer = os.fork()
            if answer == 0:
                connection.close()
                if job.get("session"):
                    os.setsid()
                for descriptor in (begins, began):
                    os.close(descriptor)
                become(job, streams)
                return job
            os.close(begins)
            os.read(began, 1)  # until the child has closed it
            os.close(began)
        for stream in streams:
            os.close(stream)
        connection.sendall(json.dumps(answer).encode() + b"\n")


def become(job: dict[str, Any], streams: list[int]) -> None:
    """Be the process that ``python script …`` with this environment and streams would be."""
    if job.get("dies"):  # with its parent, which ends when the sweep does
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = sys.__stdin__ = text(0, "r")
    sys.stdout = sys.__stdout__ = text(1, "w")
    sys.stderr = sys.__stderr__ = text(2, "w")
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    of_its_own_for_wandb()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.simplefilter("error")
    sys.argv = [job["script"], *job["arguments"]]
    sys.path[0] = os.path.dirname(job["script"])
    paths = job["env"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[1:1] = [path for path in paths if path and path not in sys.path]


def of_its_own_for_wandb() -> None:
    """The folders that W&B makes when it is imported, and each child would remove at its end."""
    from wandb.sdk.artifacts.artifact import Artifact
    from wandb.sdk.data_types._private import MEDIA_TMP

    for folder in (MEDIA_TMP, Artifact._TMP_DIR):
        folder.name = tempfile.mkdtemp()


def text(descriptor: int, mode: str) -> TextIO:
    buffering = 1 if descriptor == 2 or os.isatty(descriptor) else -1
    return open(descriptor, mode, encoding="utf-8", closefd=False, buffering=buffering)


def leave(code: int) -> None:
    """End as the interpreter does, but leave the memory to the system: freeing it takes a second.

    Where the streams cannot be flushed, it is left to the interpreter.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    os._exit(code)


class Forked:
    """What ``subprocess.Popen`` is to a sweep, for a job that is a fork."""

    nursery: socket.socket

    def __init__(self, words: list[str], *, cwd: str, env: dict[str, str], stdin: int,
                 stdout: Any, stderr: Any, start_new_session: bool,
                 preexec_fn: Any) -> None:  # fmt: skip
        job = {"script": words[1], "arguments": words[2:], "cwd": cwd, "env": env}
        job |= {"session": start_new_session, "dies": preexec_fn is not None}
        with open(os.devnull, "rb") as nothing:
            self.pid = self._ask(job, [nothing.fileno(), stdout.fileno(), stderr.fileno()])
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            self._code = self._ask({"wait": self.pid, "flags": os.WNOHANG}, [])
        return self._code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def _ask(self, request: dict[str, Any], descriptors: list[int]) -> Any:
        socket.send_fds(self.nursery, [json.dumps(request).encode()], descriptors)
        answer = b""
        while not answer.endswith(b"\n"):
            answer += self.nursery.recv(64)
        return json.loads(answer)


def with_nursery(job: dict[str, Any]) -> dict[str, Any]:
    """Fork the process that the sweep ``job`` gets its own jobs from; returns in those, too."""
    import eqprop.sweep.process

    Forked.nursery, theirs = socket.socketpair()
    if os.fork() == 0:
        os.setsid()  # a Ctrl-C is not for it
        Forked.nursery.close()
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        return serve(theirs)
    theirs.close()
    starts = SimpleNamespace(Popen=Forked, DEVNULL=subprocess.DEVNULL)
    eqprop.sweep.process.subprocess = starts  # type: ignore[attr-defined]
    return job


for module in WANTED:
    importlib.import_module(module)
gc.freeze()  # what is there stays: collecting would copy it into every child
JOB = serve(socket.socket(fileno=int(sys.argv[1])))
if "-m" in JOB["arguments"]:
    JOB = with_nursery(JOB)
try:
    runpy.run_path(JOB["script"], run_name="__main__")
    leave(0)
except SystemExit as end:
    if isinstance(end.code, int):
        leave(end.code)
    raise
