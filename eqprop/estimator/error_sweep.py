"""How the error of a gradient depends on β and on the steps, and the floor that it cannot pass.

On a log-log plot of the error against β there is a slope, the estimator's order; on the left a
floor, (residual + rounding) / β; on the right a break where a kink is crossed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eqprop.estimator.alignment import total
from eqprop.estimator.gradient_check import Candidate, Problem, Solved
from eqprop.network import WeightGradient

CLEAR = 10.0  # times the floor: an error that is larger hardly feels it
FIT = 4  # points that a slope is fitted to, and at least one less


@dataclass(frozen=True)
class Point:
    """The whole gradient under one setting: its error, its cosine, and the floor of the error."""

    setting: float
    error: float
    cosine: float
    floor: float


@dataclass(frozen=True)
class Floor:
    """What an error cannot be less than: (residual + rounding) / β, and the reference's own.

    A residual counts in units of the force ‖∂C/∂u_L‖ that a nudge of β = 1 exerts; the rounding of
    states in the same units, that of ∂E/∂θ in units of the reference's norm.
    """

    force: float
    rounding: float
    reference: float

    @classmethod
    def of(cls, problem: Problem, reference: Solved) -> Floor:
        """Measured at the free equilibrium."""
        network, squares = problem.network, 0.0
        forces, sizes = [], []
        for state, target in problem.states():
            with torch.no_grad(), state.held():
                problem.solver.free_phase(network, state)
                output = state.u[-1]
                force = problem.cost.gradient(output, target, torch.empty_like(output))
                forces.append(_norm(force))
                sizes.append(sum(_norm(state.u[layer]) for layer in state.free))
                energy = WeightGradient(network)
                energy.begin()
                energy.add(state, 1.0)
                squares += sum(float(g.double().square().sum()) for g in energy.finish(state))
        norm = sum(float(g.double().square().sum()) for b in reference.gradients for g in b)
        off, force_of_all = torch.finfo(problem.batches[0][0].dtype).eps / 2, _mean(forces)
        rounding = off * (_over(_mean(sizes), force_of_all) + math.sqrt(_over(squares, norm)))
        return cls(force_of_all, rounding, max(reference.own_residual, off))

    def __call__(self, strength: float | None, residual: float) -> float:
        """Of the relative error; without a strength nothing is divided by it."""
        if strength is None:
            return self.reference
        return (_over(residual, self.force) + self.rounding) / abs(strength) + self.reference


def strengths(
    problem: Problem,
    candidate: Candidate,
    reference: Solved,
    floor: Floor,
    values: Sequence[float],
) -> list[Point]:
    """The sweep over β (or radius)."""
    key, names = str(candidate.key), problem.names
    return [
        _point(problem.solve(candidate.make(**{key: v})), reference, names, floor, v, v)
        for v in values
    ]


def steps(
    problem: Problem, candidate: Candidate, reference: Solved, floor: Floor, values: Sequence[int]
) -> list[Point]:
    """The sweep over the estimator's own steps, or those of nudged phases; not the free phase's."""
    found = []
    for n in values:
        if candidate.steps is None:
            solved = problem.with_solver(n_nudged=n).solve(candidate.make())
        else:
            solved = problem.solve(candidate.make(steps=n))
        found.append(_point(solved, reference, problem.names, floor, candidate.strength, n))
    return found


def fitted_slope(points: Sequence[Point]) -> tuple[float | None, list[float]]:
    """The slope of log error over log β, and the β that it is fitted to; None without enough.

    Those are the smallest β, from where the error is least on, whose error is clear of the floor:
    where the law for β → 0 holds best.
    """
    found = sorted((p for p in points if p.error > 0.0), key=lambda p: abs(p.setting))
    least = min(range(len(found)), key=lambda i: found[i].error, default=0)
    clear = [p for p in found[least:] if CLEAR * p.floor < p.error < math.inf][:FIT]
    if len(clear) < FIT - 1:
        return None, []
    x = [math.log(abs(p.setting)) for p in clear]
    y = [math.log(p.error) for p in clear]
    middle = _mean(x)
    rise = sum((a - middle) * b for a, b in zip(x, y, strict=True))
    run = sum((a - middle) ** 2 for a in x)
    return (rise / run if run > 0.0 else None), [p.setting for p in clear]


def _point(
    solved: Solved,
    reference: Solved,
    names: Sequence[str],
    floor: Floor,
    strength: float | None,
    setting: float,
) -> Point:
    whole = total(solved.against(reference, names))
    limit = floor(strength, solved.residual)
    return Point(setting, whole.relative_error, whole.cosine, limit)


def _norm(tensor: Tensor) -> float:
    """Mean over the batch of each sample's norm."""
    return float(torch.linalg.vector_norm(tensor.flatten(1).double(), dim=1).mean())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _over(above: float, below: float) -> float:
    return above / below if below > 0.0 else math.inf if above > 0.0 else 0.0
