"""What a person's class overrides is what trains, by the command; what it loses is in the log once.

The oracle is the same mathematics by another road: a class that spells ours out in the least that
it may define, and one that overrides a single method of ours to do what a setting does as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from running import QUICK, Ran, train, untimed

MINE = '''
import torch
import eqprop
from eqprop.network import Gaussian, LocalEnergy
from eqprop.relaxation import Euler


class Terms(LocalEnergy):
    """The Hopfield energy by its local terms alone."""

    def value(self, u, r, d, phi):
        return 0.5 * u.square() - r * d


class Whole(eqprop.EnergyBasedModel):
    """The same energy as a whole."""

    def energy(self, u):
        r = [phi(layer) for phi, layer in zip(self.phi, u)]
        joint = sum((s * W(below)).sum(1) for W, below, s in zip(self.W, r, r[1:]))
        return 0.5 * sum(layer.square().sum(1) for layer in u[1:]) - joint


class DoubleWhole(eqprop.ConditionalGaussian):
    def energy(self, u):
        return 2 * super().energy(u)


class DoubleTerms(Gaussian):
    def value(self, u, r, d, phi):
        return 2 * super().value(u, r, d, phi)


class HalfCost(eqprop.SquaredError):
    def cost(self, u_last, target):
        return 0.5 * super().cost(u_last, target)


class HalfStep(Euler):
    """Half of each step, the other half never."""

    def step(self, network, state, nudge):
        before = state.copy().u
        super().step(network, state, nudge)
        for layer in state.free:
            state.u[layer].add_(before[layer]).mul_(0.5)
'''
PRECISE = ("device.dtype=float64", "trainer.log_every=5")
EULER = (
    "dynamics=euler",
    "dynamics.init=zeros",
    "dynamics.dt=0.1",
    "dynamics.n_relax=20",
    "cost=mse",
)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def run(*words: str, cwd: Path, name: str) -> Ran:
    outputs = cwd / name
    ran = train(*QUICK, *PRECISE, *words, f"paths.outputs={outputs}/outputs", cwd=cwd)
    ran.succeeded()
    return Ran(ran.code, ran.out, ran.err, outputs)


def numbers(ran: Ran, but: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    rows = untimed(ran.rows)
    return [{k: v for k, v in row.items() if not k.startswith(but)} for row in rows]


def agree(ours: Ran, theirs: Ran, but: tuple[str, ...] = ()) -> None:
    for one, other in zip(numbers(ours, but), numbers(theirs, but), strict=True):
        assert one == pytest.approx(other, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("solver", ["newton", "euler", "auto"])
def test_local_terms_alone_are_the_closed_forms(solver: str, mine: Path) -> None:
    """With Newton as well. (The constant of the clamped input is in no term of theirs.)"""
    how = (f"dynamics={solver}", "dynamics.init=zeros", "cost=mse")
    terms = run("model._target_=mine.Terms", *how, cwd=mine, name="terms")
    ours = run("model=hopfield", *how, "model.activation=sigmoid", cwd=mine, name="ours")
    constant = ("energy/free", "energy/nudged", "energy/test")
    agree(terms, ours, but=constant)


def test_an_energy_as_a_whole_is_its_local_terms(mine: Path) -> None:
    whole = run("model._target_=mine.Whole", *EULER, cwd=mine, name="whole")
    terms = run("model._target_=mine.Terms", *EULER, cwd=mine, name="terms")
    agree(whole, terms, but=("energy/layer/",))  # of a whole energy no layer's part is known


OVERRIDES = {
    # twice the energy relaxes as far in half the time, and has twice the gradient and residual
    "energy": ("model._target_=mine.DoubleWhole", "dynamics.dt=0.05", "DoubleWhole"),
    "terms": ("model._target_=mine.DoubleTerms", "dynamics.dt=0.05", "DoubleTerms"),
}


@pytest.mark.parametrize("part", OVERRIDES)
def test_an_energy_that_is_overridden_is_what_trains(part: str, mine: Path) -> None:
    *words, name = OVERRIDES[part]
    strength = ("estimator.beta=0.5", "optimizer=sgd", "optimizer.lr=0.1")
    theirs = run(*EULER, *strength, cwd=mine, name="theirs")
    # β C beside 2 E is as β/2 C beside E, and its contrast over β is 2 · (β/2) / β of that
    twice = ("estimator.beta=1.0", "optimizer=sgd", "optimizer.lr=0.1")
    ours = run(*EULER, *twice, *words, cwd=mine, name="ours")
    scaled = ("energy/", "relaxation/")
    agree(ours, theirs, but=scaled)
    assert told(ours, name) == 1
    assert told(theirs, "Gaussian") == 0


def test_a_cost_that_is_overridden_is_what_nudges(mine: Path) -> None:
    half = run(
        *(*EULER, "cost._target_=mine.HalfCost", "estimator.beta=0.5", "optimizer=sgd"),
        *("optimizer.lr=0.2",),
        cwd=mine,
        name="half",
    )
    full = run(
        *(*EULER, "estimator.beta=0.25", "optimizer=sgd", "optimizer.lr=0.1"), cwd=mine, name="full"
    )
    agree(half, full, but=("cost/", "gradient_norm/", "learning_rate"))
    assert told(half, "HalfCost") == 1
    assert told(full, "SquaredError") == 0


def test_a_solver_s_step_that_is_overridden_is_what_relaxes(mine: Path) -> None:
    half = run(*EULER, "dynamics._target_=mine.HalfStep", "dynamics.dt=0.2", cwd=mine, name="half")
    full = run(*EULER, "dynamics.dt=0.1", cwd=mine, name="full")
    agree(half, full)
    assert told(half, "HalfStep") == 1
    assert told(full, "Euler") == 0


def told(ran: Ran, name: str) -> int:
    """How often the run's log speaks of the class."""
    log = (ran.folder / "run.log").read_text()
    return sum(f"{name}: " in line for line in log.splitlines())
