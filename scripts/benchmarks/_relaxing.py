"""Relaxations of one network by several solvers: residuals step by step, and times apart from them.

Every solver starts from the same state. The product of the clamped input with the first weights,
which all of them need once a batch, is made beforehand and is in no time.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from _common import Row
from _timing import TURN, Case, device_wait, interleave, quartiles
from torch import Tensor

from eqprop.data import epoch_order, one_hot
from eqprop.estimator.estimator import nudged
from eqprop.network import Network, Nudge, State, residual
from eqprop.relaxation import Anderson, Euler, Exact, Newton, Solver
from eqprop.relaxation.euler import ROUNDING
from eqprop.training.session import Session

RESTING = 1e-5  # residual from which a nudged phase starts, where there is no feed-forward pass
BEYOND = 0.3  # curves go on to this share of the lowest level
Times = dict[tuple[str, str, int], list[float]]


@dataclass(frozen=True)
class Batch:
    """A state with its input clamped, and where each phase begins."""

    state: State
    starts: dict[str, tuple[Nudge | None, list[Tensor]]]

    @contextmanager
    def held(self, network: Network) -> Iterator[None]:
        """The weights held, so that the product of the input is made once: now."""
        with torch.no_grad(), self.state.held():
            network.drive(self.state, 1)
            yield


@dataclass(frozen=True)
class Curve:
    """Residuals before the first step and after each, and how often a sample's energy rose."""

    residuals: list[float]
    rises: int
    highest: float

    def steps_to(self, level: float) -> float:
        """Steps until the residual is this share of the first; inf where it never is."""
        wanted = level * self.residuals[0]
        return next((i for i, r in enumerate(self.residuals) if r <= wanted), math.inf)


def solvers_of(session: Session, only: Sequence[str] | None = None) -> dict[str, Solver]:
    """Every solver that can relax the network, by the name it has in tables."""
    known: dict[str, Solver] = {
        "euler": Euler(0.1),
        "euler adaptive": Euler(0.5, adaptive=True),
        "newton": Newton(),
        "anderson": Anderson(),
        "exact": Exact(),
    }
    quadratic = session.cost.quadratic(torch.zeros(1, 1)) is not None
    return {
        name: solver
        for name, solver in known.items()
        if (only is None or name in only)
        and (name != "exact" or quadratic)
        and _can(solver, session.network)
    }


def _can(solver: Solver, network: Network) -> bool:
    try:
        solver.check(network)
    except ValueError:
        return False
    return True


def batches_of(session: Session, args: argparse.Namespace) -> list[Batch]:
    """The first batches of an epoch, all of one size."""
    train, n_classes = session.data.train, session.data.n_classes
    order = epoch_order(len(train), args.seed, 1)
    found = list(islice(train.batches(args.batch, order), args.batches))
    return [
        batch_of(session, x, one_hot(y, n_classes, x.dtype), args.init, args.seed + i)
        for i, (x, y) in enumerate(found)
        if len(x) == len(found[0][0])
    ]


def batch_of(session: Session, x: Tensor, target: Tensor, init: str, seed: int) -> Batch:
    """Free: from ``init``, the same for every network; nudged: from the free equilibrium."""
    network = session.network
    state = network.new_state(len(x), torch.Generator(x.device).manual_seed(seed))
    state.clamp(0, x)
    state.reset(init)
    free = state.copy()
    newton = Newton(n_relax=300, tol=RESTING)
    solver = newton if _can(newton, network) else Euler(n_relax=3000, tol=RESTING)
    solver.free_phase(network, state)
    nudge = nudged(session.cost, target, 1.0)
    return Batch(state, {"free": (None, free), "nudged": (nudge, state.copy())})


class Judge:
    """The energy of a network's states in float64, without the rounding of a sum."""

    def __init__(self, network: Network, state: State, nudge: Nudge | None) -> None:
        self.network = copy.deepcopy(network).double()
        self.state = self.network.new_state(state.batch_size)
        self.state.clamp(0, state.u[0])
        self.nudge = nudge and Nudge(nudge.cost, nudge.target.double(), nudge.beta.double())

    def energy(self, state: State) -> Tensor:
        self.state.u[1:] = state.u[1:]
        return self.network.energies(self.state, self.nudge)


def curve_of(
    network: Network, solver: Solver, batch: Batch, phase: str, steps: int, until: float
) -> Curve:
    """Up to ``steps`` steps, until the residual is the share ``until`` of the first."""
    state, (nudge, start) = batch.state, batch.starts[phase]
    state.restore(start)
    solver.begin(network, state, nudge)
    judge, rises, highest = Judge(network, state, nudge), 0, 0.0
    energy = judge.energy(state)
    residuals = [float(residual(solver.gradient(network, state, nudge)))]
    while len(residuals) <= steps and until * residuals[0] < residuals[-1] < math.inf:
        solver.advance(network, state, nudge, 1)
        before, energy = energy, judge.energy(state)
        rise = energy - before
        slack = ROUNDING * torch.finfo(state.u[0].dtype).eps * before.abs().clamp_min(1.0)
        rises += bool((~(rise <= slack)).any())  # a NaN has risen too
        highest = max(highest, float(rise.max()))
        residuals.append(float(residual(solver.gradient(network, state, nudge))))
    return Curve(residuals, rises, highest)


def study(
    network: Network, solvers: dict[str, Solver], batches: list[Batch], args: argparse.Namespace
) -> list[Row]:
    """A row for every solver and phase: first all residuals, then all times."""
    cases = [(phase, name) for phase in batches[0].starts for name in solvers]
    curves: dict[tuple[str, str], list[Curve]] = {case: [] for case in cases}
    until = BEYOND * min(args.levels)
    for batch in batches:
        with batch.held(network):
            for (phase, name), found in curves.items():
                curve = curve_of(network, solvers[name], batch, phase, args.steps, until)
                found.append(curve)
    steps = {case: _steps(found, args.levels) for case, found in curves.items()}
    seconds = _times(network, solvers, batches, steps, args)
    return [_row(case, curves[case], steps[case], seconds, args.levels) for case in cases]


def _steps(curves: list[Curve], levels: list[float]) -> list[int | None]:
    """Median steps to each level, and to the end of the shortest curve."""
    medians = [statistics.median_high(c.steps_to(level) for c in curves) for level in levels]
    shortest = min(len(curve.residuals) for curve in curves) - 1
    return [None if math.isinf(m) else int(m) for m in medians] + [max(1, shortest)]


def _times(
    network: Network,
    solvers: dict[str, Solver],
    batches: list[Batch],
    steps: dict[tuple[str, str], list[int | None]],
    args: argparse.Namespace,
) -> Times:
    """Seconds of so many steps, nothing measured meanwhile, all cases of a batch in turns."""
    keys = [(*case, n) for case, found in steps.items() for n in sorted({1, *filter(None, found)})]
    seconds: Times = {key: [] for key in keys}
    turn = min(TURN, args.budget / 10)
    for batch in batches:

        def relax(phase: str, name: str, n: int, batch: Batch = batch) -> None:
            nudge, start = batch.starts[phase]
            batch.state.restore(start)
            solvers[name].relax(network, batch.state, nudge, n)

        cases = [Case(str(key), lambda key=key: relax(*key)) for key in keys]
        wait = device_wait(args.device)
        with batch.held(network):
            timings = interleave(cases, args.rounds, args.budget, wait, turn=turn)
        for key, timing in zip(keys, timings, strict=True):
            seconds[key] += timing.seconds.values()
    return seconds


def _row(
    case: tuple[str, str],
    curves: list[Curve],
    steps: list[int | None],
    seconds: Times,
    levels: list[float],
) -> Row:
    *to_levels, end = steps
    times = {n: quartiles(values) for (*key, n), values in seconds.items() if tuple(key) == case}
    relative = [[r / c.residuals[0] for r in c.residuals[: (end or 1) + 1]] for c in curves]
    shown = min(map(len, relative))
    return {
        "phase": case[0],
        "solver": case[1],
        "first_residual": statistics.median(c.residuals[0] for c in curves),
        "last_residual": statistics.median(c.residuals[-1] for c in curves),
        "steps_taken": sum(len(c.residuals) - 1 for c in curves),
        "energy_rises": sum(c.rises for c in curves),
        "highest_rise": max(c.highest for c in curves),
        "levels": [
            {"level": level, "steps": n} | {f"{k}_s": v for k, v in (times[n] if n else {}).items()}
            for level, n in zip(levels, to_levels, strict=True)
        ],
        "residual": [statistics.median(r[i] for r in relative) for i in range(shown)],
        "seconds": _line(times, shown),
    }


def _line(times: dict[int, dict[str, float]], shown: int) -> list[float]:
    """Seconds of 0, 1, 2 … steps by a straight line through the times measured, in proportion."""
    n = np.array(list(times), dtype=float)
    seconds = np.array([spread["median"] for spread in times.values()])
    slope, begin = np.polyfit(n, seconds, 1, w=1 / seconds) if len(n) > 1 else (-1.0, 0.0)
    if slope <= 0.0 or begin < 0.0:
        slope, begin = float(np.median(seconds / n)), 0.0
    return [0.0, *(float(begin + slope * i) for i in range(1, shown))]
