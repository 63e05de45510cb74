"""A sweep of twelve real runs by each launcher, through the command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import a_slurm
from running import QUICK, status, train

pytestmark = pytest.mark.slow
EXTRA = {"submitit_slurm": "submitit"}
TIMEOUT = 600.0  # seconds


@pytest.fixture
def slurm(launcher: str) -> Iterator[dict[str, str]]:
    """The variables by which a Slurm of this machine is found, where the launcher wants one."""
    if launcher != "submitit_slurm":
        yield {}
        return
    with a_slurm() as variables:
        yield variables


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
