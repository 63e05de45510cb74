"""Runs that are cut off at a step, and what must be the same whatever happened on the way."""

from __future__ import annotations

import atexit
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from running import QUICK, Ran, rows, status, train, untimed

from eqprop.run import checkpoint

RUN = (*QUICK, "trainer.epochs=3", "trainer.log_every=2", "checkpoint.share=1")
"""Three epochs of 13 steps each; `QUICK` but for the number of epochs, which is given twice."""

KILL = """
import os, signal, sys
step, sys.argv[1:] = int(sys.argv[1]), sys.argv[2:]
from eqprop.training.loop import Training
update = Training.update
def killing(self, *args):
    if self.step == step:
        os.kill(os.getpid(), signal.SIG{name})
    return update(self, *args)
Training.update = killing
from eqprop.cli.main import run
run()
"""


def killed(step: int, *arguments: str, cwd: Path, name: str = "KILL") -> Ran:
    """A run to which a signal comes at the beginning of a step."""
    script = cwd / f"kill-{name}.py"
    script.write_text(KILL.replace("{name}", name))
    return train(str(step), *arguments, cwd=cwd, script=script)


def with_code(code: str, *arguments: str, cwd: Path, env: Any = None) -> Ran:
    """A run of the program after some code of the test's."""
    script = cwd.parent / f"{cwd.name}-script.py"
    script.write_text(f"{code}\nfrom eqprop.cli.main import run\nrun()\n")
    return train(*arguments, cwd=cwd, script=script, env=env)


def before_step(step: int, code: str) -> str:
    """Code for ``with_code``: a line of Python that is run at the beginning of a step."""
    return (
        "from eqprop.training.loop import Training\n"
        "update = Training.update\n"
        "def updating(self, *args):\n"
        f"    if self.step == {step}:\n"
        f"        {code}\n"
        "    return update(self, *args)\n"
        "Training.update = updating\n"
    )


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
