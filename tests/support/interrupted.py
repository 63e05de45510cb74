"""Runs that are cut off at a step, and what must be the same whatever happened on the way."""

from __future__ import annotations

import atexit
import tempfile
from functools import cache
from pathlib import Path
from textwrap import indent
from typing import Any

from running import QUICK, Ran, rows, status, train, untimed

from eqprop.run import checkpoint

RUN = (*QUICK, "trainer.epochs=3", "trainer.log_every=2", "checkpoint.share=1")
"""Three epochs of 13 steps each; `QUICK` but for the number of epochs, which is given twice."""

HOOK = """
import os, signal, time
from eqprop.training.step import PlainStep
def hooked(self, session, *args, take=PlainStep.__call__):
    if session.step in {steps}:
{code}
    return take(self, session, *args)
PlainStep.__call__ = hooked
"""


def killed(step: int, *arguments: str, cwd: Path, name: str = "KILL", env: Any = None) -> Ran:
    """A run to which a signal comes at the beginning of a step."""
    code = before_step(step, f"os.kill(os.getpid(), signal.SIG{name})")
    return with_code(code, *arguments, cwd=cwd, env=env)


def with_code(code: str, *arguments: str, cwd: Path, env: Any = None) -> Ran:
    """A run of the program after some code of the test's."""
    script = cwd.parent / f"{cwd.name}-script.py"
    script.write_text(f"{code}\nfrom eqprop.cli.main import run\nrun()\n")
    return train(*arguments, cwd=cwd, script=script, env=env)


def before_step(step: int | range, code: str) -> str:
    """Code for ``with_code``: lines of Python to run as a step begins; ``session`` is at hand."""
    steps = step if isinstance(step, range) else [step]
    return HOOK.format(steps=steps, code=indent(code, 8 * " "))


def learnt(folder: Path) -> tuple[Any, ...]:
    """What must be the same, whatever happened on the way."""
    files = [checkpoint.read(folder / "checkpoints" / name) for name in ("last.pt", "best.pt")]
    return [f.body for f in files], untimed(rows(folder)), status(folder)["objective"]


@cache
def alone(*more: str) -> Path:
    """The folder of a run of `RUN` that was left alone, made once; nobody may change it."""
    folder = tempfile.TemporaryDirectory(prefix="eqprop-alone-")
    atexit.register(folder.cleanup)
    return train(*RUN, *more, "hydra.run.dir=a", cwd=Path(folder.name)).succeeded().cwd / "a"
