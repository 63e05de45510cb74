"""Runs the scripts beside train.py as a user would; pytest finds their modules too."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None,
    reason="figures need matplotlib: pip install 'eqprop[report]'",
)


def run(script: str, *arguments: object, status: int = 0) -> str:
    """What the script prints: its output, or where it should fail, its message."""
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr if status else done.stdout


def in_process(module: ModuleType, *arguments: object) -> str:
    """What the ``main`` of a script's module prints: as ``run``, without loading torch anew."""
    argv = [f"{module.__name__}.py", *map(str, arguments)]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("GOMP_SPINCOUNT", "0")  # set already, so that no script sets it for good
        patch.setattr(sys, "argv", argv)
        module.main()
    return out.getvalue()


def is_png(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


report = partial(run, "report.py")
