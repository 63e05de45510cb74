"""What a run was made with: versions, code, command and hardware, for ``environment.json``.

Nothing here imports torch: it answers before torch is loaded, and tells of GPUs once it is.
"""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from eqprop.run.hardware import processors
from eqprop.run.redact import redact
from eqprop.run.version import __version__

PACKAGES = ("torch", "torchvision", "numpy", "hydra-core", "omegaconf", "pydantic", "wandb")
DIFF_LIMIT = 1_000_000  # characters
GIT_TIMEOUT = 5.0  # seconds, each command


def describe(command: Sequence[str]) -> dict[str, Any]:
    """Everything that ``environment.json`` holds, as plain JSON values without secrets.

    No environment variables are recorded. Code is the git repository of the working directory:
    null where there is none, no git, or no answer within a few seconds.
    """
    return {
        "command": [redact(word) for word in command],
        "working_directory": os.getcwd(),
        "versions": versions(),
        "git": git_state(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "hardware": hardware(),
    }


def versions() -> dict[str, str | None]:
    """Versions of Python, eqprop and each package that decides a run's numbers; None: missing."""
    found: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return {"python": platform.python_version(), "eqprop": __version__, **found}


def git_state(folder: str | os.PathLike[str] = ".", *, diff: bool = True) -> dict[str, Any] | None:
    """Commit, remote and uncommitted changes of the repository around ``folder``, or None.

    ``diff`` is against the commit, cut (``diff_truncated``) after a million characters.
    """
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None
    remote = _git(folder, "config", "--get", "remote.origin.url")
    state: dict[str, Any] = {
        "commit": commit.strip(),
        "remote": redact(remote.strip()) if remote else None,
    }
    if diff:
        changes = _git(folder, "diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")
        state["diff"] = None if changes is None else redact(changes[:DIFF_LIMIT])
        state["diff_truncated"] = changes is not None and len(changes) > DIFF_LIMIT
    return state


def hardware() -> dict[str, Any]:
    """Processor, its cores, memory in bytes; threads and GPUs where torch is loaded.

    ``cores_usable`` are those that affinity and a container's quota leave.
    """
    torch: Any = sys.modules.get("torch")
    cuda: Any = getattr(torch, "cuda", None)
    count = cuda.device_count() if cuda is not None and cuda.is_available() else 0
    gpus = [cuda.get_device_properties(number) for number in range(count)]
    return {
        "cpu": _cpu_model(),
        "cores_physical": psutil.cpu_count(logical=False),
        "cores_logical": psutil.cpu_count(logical=True),
        "cores_usable": processors(),
        "threads": None if torch is None else torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in gpus],
    }


def _git(folder: str | os.PathLike[str], *arguments: str) -> str | None:
    """What git prints; None if it is missing, fails or is slow."""
    command = ["git", "-C", os.fspath(folder), *arguments]
    quiet = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        found = subprocess.run(
            command, capture_output=True, env=quiet, timeout=GIT_TIMEOUT, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.decode("utf-8", errors="replace")


def _cpu_model() -> str | None:
    with suppress(OSError):  # Linux
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or None
