"""How far an estimator's gradient is from a reference, on the same batches from the same states."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from eqprop.estimator.alignment import Alignment, compare, total
from eqprop.estimator.contrast import Contrast
from eqprop.estimator.estimator import Estimate, Estimator
from eqprop.network import Cost, Network, State
from eqprop.network.cost import fitting
from eqprop.relaxation import Solver


@dataclass(frozen=True)
class Problem:
    """Where gradients are compared: a network as it is, some batches, and how both relax.

    Attributes:
        batches: inputs (batch, *shape) and one-hot targets (batch, n_out).
        seed: of the noise of first states, the same for every estimator.
    """

    network: Network
    solver: Solver
    cost: Cost
    batches: Sequence[tuple[Tensor, Tensor]]
    seed: int = 0

    @property
    def names(self) -> list[str]:
        """The parameters'."""
        return [name for name, _ in self.network.named_parameters()]

    def states(self) -> Iterator[tuple[State, Tensor]]:
        """For each batch a state of its own, its input clamped, and the target."""
        for number, (x, target) in enumerate(self.batches):
            generator = torch.Generator(x.device).manual_seed(self.seed + number)
            state = self.network.new_state(len(x), generator)
            state.clamp(0, x)
            yield state, fitting(target, state.u[-1])

    def solve(self, estimator: Estimator) -> Solved:
        """The estimator's gradient of each batch."""
        gradients, residuals, found = [], [], []
        for state, target in self.states():
            parts = self.network, state, self.solver, self.cost, target
            estimate = estimator.estimate(*parts, measure=True)
            gradients.append([g.detach().clone() for g in estimate.gradients])
            meant = self.solver.seeks_equilibrium(self.network)
            residuals.append(_residual(estimator, estimate) if meant else 0.0)
            found.append(estimate)
        own = [e.metrics.get("implicit/residual", 0.0) for e in found]
        nudged = any(name != "free" for e in found for name in e.phases)
        relaxed = any(p.steps for e in found for n, p in e.phases.items() if n == "free")
        return Solved(gradients, sum(residuals) / len(residuals), max(own), nudged, relaxed)

    def seconds(self, estimator: Estimator, times: int = 5) -> float:
        """Of one estimate of the first batch, as a training takes it: the median of some."""
        state, target = next(self.states())
        parts, found = (self.network, state, self.solver, self.cost, target), []
        for _ in range(1 + times):
            begin = time.perf_counter()
            estimate = estimator.estimate(*parts)
            float(estimate.gradients[0].sum())  # waits for a GPU
            found.append(time.perf_counter() - begin)
        return statistics.median(found[1:])

    def with_solver(self, **settings: Any) -> Problem:
        """The same with a solver of other settings."""
        solver = copy.copy(self.solver)
        for name, value in settings.items():
            setattr(solver, name, value)
        return replace(self, solver=solver)


@dataclass(frozen=True)
class Solved:
    """What an estimator makes of a problem.

    Attributes:
        gradients: a list for each batch, a tensor for each parameter.
        residual: of the phases that it contrasts, where they stop; mean over the batches.
        own_residual: of the linear equations that it solves instead, relative.
        nudged: whether there are phases beside the free one.
        relaxed: whether the free one takes steps.
    """

    gradients: list[list[Tensor]]
    residual: float
    own_residual: float
    nudged: bool
    relaxed: bool

    def against(self, reference: Solved, names: Sequence[str]) -> dict[str, Alignment]:
        """Each parameter's alignment over all batches."""
        pairs = zip(self.gradients, reference.gradients, strict=True)
        found = [compare(names, ours, theirs) for ours, theirs in pairs]
        return {name: reduce(add, (one[name] for one in found)) for name in names}

    def error(self, reference: Solved, names: Sequence[str]) -> float:
        """Of the whole gradient, relative."""
        return total(self.against(reference, names)).relative_error


@dataclass(frozen=True)
class Candidate:
    """An estimator with settings that sweeps may vary.

    Attributes:
        make: the estimator, with other values of its settings by name.
        key: what the strength of its nudge is called; None for an estimator without one.
        strength: its value.
        steps: its own number of steps, a setting of that name; None if it has none.
    """

    name: str
    make: Callable[..., Estimator]
    key: str | None = None
    strength: float | None = None
    steps: int | None = None

    @property
    def order(self) -> int | None:
        """Of the error in the strength, where the estimator says it."""
        return self.make().order


def _residual(estimator: Estimator, estimate: Estimate) -> float:
    """Of the phases that are contrasted; where it is not, the free one only begins it."""
    uses_free = True
    if isinstance(estimator, Contrast):
        uses_free = any(beta == 0.0 for beta, _ in estimator.phases)
    return sum(
        phase.residual or 0.0
        for name, phase in estimate.phases.items()
        if name != "free" or uses_free
    )
