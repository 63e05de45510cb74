"""The example package of CONTRIBUTING: each part is one class and one YAML, and learns by command.

Oracle: a learning floor on real digits (chance is 10 %), in a folder outside the repository.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from running import ROOT, Ran, train

DIGITS = ("dataset=digits", "tracking=none", "trainer.epochs=8", "optimizer.lr=1e-2", "seed=1")
PARTS = {
    "energy": ("model=leaky", "model.hidden=[50]"),
    "edge": ("network=low_rank",),
    "solver": ("model=hopfield", "model.hidden=[50]", "dynamics=momentum"),
    "estimator": ("model=leaky", "model.hidden=[50]", "estimator=hebbian"),
    "all of them": ("model=leaky", "network=low_rank", "dynamics=momentum", "estimator=hebbian"),
}
WRONG = {
    "energy": ("model=leaky", "model.price=-1"),
    "energy's name": ("model=leaky", "model._target_=mine.Leeky"),
    "edge": ("model.hidden=[{_target_: mine.LowRank, units: 50, rang: 3}]",),
    "solver": ("dynamics=momentum", "dynamics.momentum=1.5"),
    "estimator": ("estimator=hebbian", "+estimator.beta=0.5"),
}
TOLD = {
    "energy": "model.price=-1",
    "energy's name": "mine.Leaky",
    "edge": "model.hidden[0].rank",
    "solver": "dynamics.momentum=1.5",
    "estimator": "estimator.beta",
}


def run(words: tuple[str, ...], tmp_path: Path) -> Ran:
    """The command in a copy of the example's folder."""
    shutil.copytree(ROOT / "tests" / "example", tmp_path, dirs_exist_ok=True)
    return train("--config-dir", "conf", *words, cwd=tmp_path)


@pytest.mark.parametrize("part", PARTS)
def test_it_learns(part: str, tmp_path: Path) -> None:
    ran = run((*PARTS[part], *DIGITS), tmp_path).succeeded()
    assert ran.epochs[-1]["accuracy/train"] > 0.6


@pytest.mark.parametrize("part", WRONG)
def test_a_wrong_key_is_one_line(part: str, tmp_path: Path) -> None:
    ran = run((*WRONG[part], *DIGITS), tmp_path)
    assert ran.code == 2
    assert TOLD[part] in ran.error
    assert not ran.folders
