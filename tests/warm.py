"""Runs scripts many times and pays for importing torch once: each run is a fork of this process.

``python warm.py FD`` serves a socket: a job comes with three descriptors (its standard streams) and
is answered by its process id; ``{"wait": pid}`` is answered by how that process ended. A child goes
on to the end of this file, so that it ends as any Python program does.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import tempfile
import threading
import warnings
from typing import Any, TextIO

WANTED = ("sklearn.datasets", "torch._dynamo", "wandb", "eqprop.assembly", "eqprop.cli")
"""What runs need and what takes long to import."""


def serve(connection: socket.socket) -> dict[str, Any]:
    """Answer requests for ever, or end with the socket; returns in the children, with the job."""
    while True:
        message, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
        if not message:
            os._exit(0)
        job: dict[str, Any] = json.loads(message)
        if "wait" in job:
            answer = os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                connection.close()
                become(job, streams)
                return job
        for stream in streams:
            os.close(stream)
        connection.sendall(json.dumps(answer).encode() + b"\n")


def become(job: dict[str, Any], streams: list[int]) -> None:
    """Be the process that ``python script …`` with this environment and streams would be."""
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


for module in WANTED:
    importlib.import_module(module)
gc.freeze()  # what is there stays: collecting would copy it into every child
SCRIPT = serve(socket.socket(fileno=int(sys.argv[1])))["script"]
try:
    runpy.run_path(SCRIPT, run_name="__main__")
    leave(0)
except SystemExit as end:
    if isinstance(end.code, int):
        leave(end.code)
    raise
