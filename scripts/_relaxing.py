"""Relaxations of one network by several solvers: residuals step by step, and times apart from them.

Every solver starts from the same state. The product of the clamped input with the first weights,
which all of them need once a batch, is made beforehand and is in no time.
"""

from __future__ import annotations

import copy
import math
import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _solver_starts import Batch, Start, held
from _timing import TURN, Case, device_wait, interleave, quartiles
from torch import Tensor

from eqprop import EnergyBasedModel
from eqprop.relaxation import Solver
from eqprop.relaxation.euler import ROUNDING

Row = dict[str, Any]
PHASES = ("free", "nudged")
ASIDE = 1e-6  # how far beside a kink of φ the derivatives from either side are taken
BEYOND = 0.3  # curves go on to this share of the lowest level


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


class Judge:
    """A copy of a model in float64: the energy of its states, without the rounding of a sum."""

    def __init__(self, model: EnergyBasedModel, start: Start) -> None:
        self.copy = copy.deepcopy(model).double()
        self.copy.clamp_layer(0, model.u[0])
        self.copy.set_C_target(start.target)

    def energy(self, model: EnergyBasedModel) -> Tensor:
        for mine, layer in zip(self.copy.u[1:], model.u[1:], strict=True):
            mine.copy_(layer)
        return self.copy.E


def curve_of(
    model: EnergyBasedModel, solver: Solver, start: Start, steps: int, until: float
) -> Curve:
    """Up to ``steps`` steps, until the residual is the share ``until`` of the first."""
    start.place(model)
    solver.begin(model)
    work, probe = model.free_layers("gradient"), model.free_layers("probe")
    judge, rises, highest = Judge(model, start), 0, 0.0
    with judge.copy.holding_weights():
        residuals, energy = [_residual(model, probe)], judge.energy(model)
        while len(residuals) <= steps and until * residuals[0] < residuals[-1] < math.inf:
            solver.advance(model, work, 1)
            before, energy = energy, judge.energy(model)
            rise = energy - before
            slack = ROUNDING * torch.finfo(model.u[0].dtype).eps * before.abs().clamp_min(1.0)
            rises += bool((~(rise <= slack)).any())  # a NaN has risen too
            highest = max(highest, float(rise.max()))
            residuals.append(_residual(model, probe))
    return Curve(residuals, rises, highest)


def _residual(model: EnergyBasedModel, probe: list[Tensor | None]) -> float:
    """The residual of ∂F/∂u; of its smallest value at a kink of φ, where a minimum may well lie."""
    ends = [{end for piece in phi.pieces for end in piece[:2]} - {math.inf, -math.inf}
            for phi in model.phi]  # fmt: skip
    if not any(ends):
        model.total_gradient(probe)
        return float(model.residual(probe))
    kinks = [sum((u == end for end in at), torch.zeros_like(u, dtype=torch.bool))
             for u, at in zip(model.u, ends, strict=True)]  # fmt: skip
    left, right = (_beside(model, probe, kinks, side) for side in (-ASIDE, ASIDE))
    model.total_gradient(probe)  # last, so that a solver finds the rates of its own state
    for grad, kink, a, b in zip(probe, kinks, left, right, strict=True):
        if grad is not None and a is not None and b is not None:
            least = torch.where(a.abs() < b.abs(), a, b).masked_fill_((a <= 0.0) & (b >= 0.0), 0.0)
            grad.copy_(torch.where(kink, least, grad))
    return float(model.residual(probe))


def _beside(
    model: EnergyBasedModel, probe: list[Tensor | None], kinks: list[Tensor], by: float
) -> list[Tensor | None]:
    """∂F/∂u with the units at kinks moved aside for once."""
    kept = [layer.clone() for layer in model.u]
    for layer, kink, grad in zip(model.u, kinks, probe, strict=True):
        if grad is not None:
            layer.add_(kink, alpha=by)
    model.total_gradient(probe)
    for layer, before, grad in zip(model.u, kept, probe, strict=True):
        if grad is not None:
            layer.copy_(before)
    return [None if grad is None else grad.clone() for grad in probe]


def study(
    model: EnergyBasedModel, solvers: dict[str, Solver], batches: list[Batch], args: Any
) -> list[Row]:
    """A row for every solver and phase: first all residuals, then all times."""
    cases = [(phase, name) for phase in PHASES for name in solvers]
    curves: dict[tuple[str, str], list[Curve]] = {case: [] for case in cases}
    until = BEYOND * min(args.levels)
    for batch in batches:
        with held(model, batch.x):
            for (phase, name), found in curves.items():
                start = batch.starts[phase]
                found.append(curve_of(model, solvers[name], start, args.steps, until))
    steps = {case: _steps(found, args.levels) for case, found in curves.items()}
    seconds = _times(model, solvers, batches, steps, args)
    return [_row(case, curves[case], steps[case], seconds, args.levels) for case in cases]


def _steps(curves: list[Curve], levels: list[float]) -> list[int | None]:
    """Median steps to each level, and to the end of the shortest curve."""
    medians = [statistics.median_high(c.steps_to(level) for c in curves) for level in levels]
    shortest = min(len(curve.residuals) for curve in curves) - 1
    return [None if math.isinf(m) else int(m) for m in medians] + [max(1, shortest)]


def _times(
    model: EnergyBasedModel,
    solvers: dict[str, Solver],
    batches: list[Batch],
    steps: dict[tuple[str, str], list[int | None]],
    args: Any,
) -> dict[tuple[str, str, int], list[float]]:
    """Seconds of so many steps, nothing measured meanwhile, all cases of a batch in turns."""
    keys = [(*case, n) for case, found in steps.items() for n in sorted({1, *filter(None, found)})]
    seconds: dict[tuple[str, str, int], list[float]] = {key: [] for key in keys}
    turn = min(TURN, args.budget / 10)
    for batch in batches:

        def relax(phase: str, name: str, n: int, batch: Batch = batch) -> None:
            batch.starts[phase].place(model)
            solvers[name].relax(model, n)

        cases = [Case(str(key), lambda key=key: relax(*key)) for key in keys]
        with held(model, batch.x):
            timings = interleave(
                cases, args.rounds, args.budget, device_wait(args.device), turn=turn
            )
        for key, timing in zip(keys, timings, strict=True):
            seconds[key] += timing.seconds.values()
    return seconds


def _row(
    case: tuple[str, str],
    curves: list[Curve],
    steps: list[int | None],
    seconds: dict[tuple[str, str, int], list[float]],
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
