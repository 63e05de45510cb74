"""A sweep of twelve real runs by each launcher, through the command."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import QUICK, ROOT, status, train

pytestmark = pytest.mark.slow
SLURM = ROOT / "tests" / "slurm.sh"
EXTRA = {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit"}
TIMEOUT = 600.0  # seconds


@pytest.fixture
def slurm(launcher: str) -> Iterator[dict[str, str]]:
    """The variables by which a Slurm of this machine is found, where the launcher wants one."""
    if launcher != "submitit_slurm":
        yield {}
        return
    folder = tempfile.mkdtemp(prefix="slurm-", dir="/tmp")
    started = subprocess.run([SLURM, "start", folder], capture_output=True, text=True, check=False)
    if started.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"no Slurm on this machine: {started.stderr.strip()}")
    yield {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": os.environ["PATH"] + ":/usr/bin"}
    subprocess.run([SLURM, "stop", folder], check=True, stdin=subprocess.DEVNULL)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("launcher", ["basic", *EXTRA, "ray"])
def test_twelve_runs(launcher: str, slurm: dict[str, str], tmp_path: Path) -> None:
    if launcher != "basic":
        pytest.importorskip(EXTRA.get(launcher, launcher))
    sweep = (f"hydra/launcher={launcher}", "sweep.jobs=2", "seed=range(12)")
    ran = train("-m", *QUICK, *sweep, cwd=tmp_path, env=slurm, cold=True, timeout=TIMEOUT)
    assert ran.code == 0, ran.out + ran.err
    assert len(ran.folders) == 12
    assert {status(folder)["state"] for folder in ran.folders} == {"done"}
    assert "12 done" in ran.out
