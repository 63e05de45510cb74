"""The example package of docs/own-parts.md: each part, one class and one YAML, learns by command.

Oracle: a learning floor on real digits (chance is 10 %) and on bars (50 %), in a folder outside
the repository.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from running import QUICK, ROOT, Ran, train

SHORT = ("tracking=none", "trainer.epochs=8", "optimizer.lr=1e-2", "seed=1")
DIGITS = ("dataset=digits", *SHORT)
PARTS = {
    "data set": ("dataset=bars", "model.hidden=[50]"),
    "energy": ("model=leaky", "model.hidden=[50]"),
    "edge": ("network=low_rank",),
    "solver": ("model=hopfield", "model.hidden=[50]", "dynamics=momentum"),
    "estimator": ("model=leaky", "model.hidden=[50]", "estimator=hebbian"),
    "all of them": ("model=leaky", "network=low_rank", "dynamics=momentum", "estimator=hebbian"),
}
WRONG = {
    "data set": ("dataset.noise=-1",),
    "energy": ("model=leaky", "model.price=-1"),
    "energy's name": ("model=leaky", "model._target_=mine.Leeky"),
    "edge": ("model.hidden=[{_target_: mine.LowRank, units: 50, rang: 3}]",),
    "solver": ("dynamics=momentum", "dynamics.momentum=1.5"),
    "estimator": ("estimator=hebbian", "+estimator.beta=0.5"),
}
TOLD = {
    "data set": "dataset.noise=-1",
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
    rest, floor = (SHORT, 0.9) if part == "data set" else (DIGITS, 0.6)
    ran = run((*PARTS[part], *rest), tmp_path).succeeded()
    assert ran.epochs[-1]["accuracy/train"] > floor


@pytest.mark.parametrize("part", WRONG)
def test_a_wrong_key_is_one_line(part: str, tmp_path: Path) -> None:
    rest = ("dataset=bars", *SHORT) if part == "data set" else DIGITS
    ran = run((*rest, *WRONG[part]), tmp_path)
    assert ran.code == 2
    assert TOLD[part] in ran.error
    assert not ran.folders


SOLVER = '''
from typing import Annotated

from annotated_types import Gt, Lt
from typing_extensions import Doc

from eqprop.relaxation import Euler


class Slow(Euler):
    """Euler, slowed down."""

    def __init__(self, share: Annotated[float, Gt(0), Lt(1), Doc("of a step")] = 0.5, **options):
        super().__init__(**options)
        if share == 0.25:
            raise ValueError("share must not be a quarter")
        self.dt *= share
'''


def test_a_solver_of_one_s_own_is_a_class_and_an_option(tmp_path: Path) -> None:
    (tmp_path / "my_lab.py").write_text(SOLVER)
    option = tmp_path / "conf" / "dynamics" / "slow.yaml"
    option.parent.mkdir(parents=True)
    option.write_text("_target_: my_lab.Slow\nshare: 0.5\nn_relax: 5\n")
    command = ("--config-dir=conf", *QUICK, "dynamics=slow")
    for override, words in {
        "dynamics.share=1": "dynamics.share=1: number > 0 < 1",
        "dynamics.n_relax=0": "dynamics.n_relax=0: whole number >= 1",
        "dynamics.shrae=1": "dynamics.shrae=1: did you mean dynamics.share?",
        "+dynamics.n_nuged=1": "dynamics.n_nuged=1: did you mean dynamics.n_nudged?",
        "+dynamics.adaptive=1": "dynamics.adaptive=1: true false",
    }.items():
        ran = train(*command, override, cwd=tmp_path)
        assert ran.code == 2
        assert all(word in ran.error for word in words.split())
        assert not (tmp_path / "outputs").exists()
    refused = train(*command, "dynamics.share=0.25", cwd=tmp_path)
    assert (refused.code, "share must not be a quarter" in refused.error) == (2, True)
    train(*command, cwd=tmp_path).succeeded()
