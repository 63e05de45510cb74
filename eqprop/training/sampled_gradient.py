"""What the gradient of a few samples says: its size, and how much of it no cost has caused."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from eqprop.data import one_hot
from eqprop.estimator import Estimator
from eqprop.network import Cost, State
from eqprop.network.local import Quadratic
from eqprop.relaxation import Solver
from eqprop.relaxation.settings import KEPT
from eqprop.training.session import Session

SAMPLES, DRAWN = 32, 256  # that are looked at; more, where the noise of drawn starts averages out
DRIFT = 2.0  # of what the nudge adds to a gradient: more of it is there without a nudge
BELOW = 1e-4  # of the largest gradient: a layer's that is smaller is lost


class NoPull(Cost):
    """A cost in the place of another, which pulls at nothing: a gradient without it is drift."""

    def __init__(self, cost: Cost) -> None:
        self._quadratic = type(cost).quadratic is not Cost.quadratic

    @property
    def analytic(self) -> bool:  # type: ignore[override]
        return True

    def cost(self, u_last: Tensor, target: Tensor) -> Tensor:
        return (0.0 * u_last).flatten(1).sum(1)

    def gradient(self, u_last: Tensor, target: Tensor, out: Tensor) -> Tensor:
        return out.zero_()

    def curvature(self, u_last: Tensor, target: Tensor, out: Tensor) -> Tensor:
        return out.zero_()

    def quadratic(self, target: Tensor) -> Quadratic | None:
        return Quadratic(0.0, torch.zeros_like(target)) if self._quadratic else None


@dataclass(frozen=True)
class Signal:
    """What a few samples' gradient says, for each weight by its name.

    Attributes:
        size: the root of the mean square of its elements.
        drift: of the gradient without a pull of the cost, over that of the difference.
        cost: of the free phase's outputs, the mean over the samples.
    """

    size: dict[str, float]
    drift: dict[str, float]
    cost: float = 0.0

    @property
    def largest(self) -> float:
        return max(self.size.values(), default=0.0)

    @property
    def finite(self) -> bool:
        return all(map(math.isfinite, self.size.values()))

    @property
    def least(self) -> tuple[str, float]:
        """The weights whose gradient is smallest, and its size over the largest."""
        name = min(self.size, key=lambda name: self.size[name])
        return name, self.size[name] / self.largest if self.largest > 0.0 else 0.0

    @property
    def drifting(self) -> tuple[str, float]:
        """The weights whose gradient drifts most, and how much."""
        return max(self.drift.items(), key=lambda item: item[1], default=("", 0.0))

    @property
    def fault(self) -> str | None:
        """In words; None where there is none."""
        if not self.finite or not self.size:  # which the divergence guard tells
            return None
        if self.largest == 0.0:
            return "every gradient is 0"
        name, drift = self.drifting
        if drift > DRIFT:
            return (
                f"the phases stop before they are at rest: without a nudge the gradient of {name} "
                f"would be {drift:.2g} times what the nudge adds to it"
            )
        name, share = self.least
        if share < BELOW:
            return f"the gradient of {name} is lost: {share:.1g} of the largest"
        return None


@torch.no_grad()
def look(session: Session, solver: Solver, estimator: Estimator) -> Signal:
    """The gradient of a few training samples, and what of it is drift."""
    found, cost = _gradients(session, solver, estimator, session.cost)
    size = {name: _size(g) for name, g in found.items()}
    drift = {}
    if estimator.follows_cost:
        without, _ = _gradients(session, solver, estimator, NoPull(session.cost))
        for name, g in without.items():
            own = _size(found[name] - g)
            drift[name] = _size(g) / own if own > 0.0 else math.inf if g.any() else 0.0
    return Signal(size, drift, cost)


def _gradients(
    session: Session, solver: Solver, estimator: Estimator, cost: Cost
) -> tuple[dict[str, Tensor], float]:
    """Of some samples all over the training data, a tensor for each weight; and what they cost."""
    network, data = session.network, session.data
    n = min(DRAWN if solver.first(network) == "normal" else SAMPLES, len(data.train))
    places = torch.linspace(0, len(data.train) - 1, n).round().long()
    x, y = next(data.train.batches(n, places))
    state = network.new_state(n, session.evaluation_generator())
    if solver.init in KEPT:
        _carry(session, state, places.to(x.device))
    state.clamp(0, x)
    target = one_hot(y, data.n_classes, x.dtype)
    found = estimator.estimate(network, state, solver, cost, target)
    pairs = zip(network.named_parameters(), found.gradients, strict=True)
    gradients = {
        name: g.detach().clone()
        for (name, weight), g in pairs
        if weight.requires_grad and g.dim() > 1 and ".feedback." not in name
    }
    return gradients, float(session.cost.cost(found.output, target).mean())


def _carry(session: Session, state: State, samples: Tensor) -> None:
    """Have ``state`` start where a step of the training would."""
    latest, n = session.latest, state.batch_size
    state.carries = latest is not None and latest.batch_size >= n
    if session.kept is not None and session.kept.layers:
        session.kept.put(state, samples)
    elif state.carries and latest is not None:
        state.u[1:] = [layer[:n] for layer in latest.u[1:]]


def _size(gradient: Tensor) -> float:
    return float(gradient.square().mean().sqrt())
