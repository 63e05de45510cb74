"""A real Slurm of one node on this machine, started by ``tests/support/slurm.sh``."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from running import ROOT

from eqprop.sweep.job import Handle
from eqprop.sweep.slurm import SlurmJob

SCRIPT = ROOT / "tests" / "support" / "slurm.sh"


@contextmanager
def a_slurm() -> Iterator[dict[str, str]]:
    """The variables by which it is found; the test is skipped where it cannot run."""
    folder = tempfile.mkdtemp(prefix="slurm-", dir="/tmp")
    try:
        started = subprocess.run([SCRIPT, "start", folder], capture_output=True, text=True)
        if started.returncode != 0:
            pytest.skip(f"no Slurm on this machine: {started.stderr.strip()}")
        yield {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": os.environ["PATH"] + ":/usr/bin"}
        subprocess.run([SCRIPT, "stop", folder], check=True, stdin=subprocess.DEVNULL)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def state_of(number: str) -> str:
    """What Slurm says of a job: its state, its exit status and how often it was queued again."""
    command = ["scontrol", "show", "job", "--oneliner", number]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(word.split("=", 1) for word in said.split() if "=" in word)
    return f"{found['JobState']} {found['ExitCode']} {found['Restarts']}"


def number_of(handle: Handle) -> str:
    """Slurm's number of a job."""
    assert isinstance(handle, SlurmJob)
    return str(handle.submitted.job_id)


def steps_of(number: str) -> list[str]:
    """Slurm's own processes of a job."""
    start = f"slurmstepd: [{number}."
    found = (
        " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])
    )
    return [line for line in found if line.startswith(start)]
