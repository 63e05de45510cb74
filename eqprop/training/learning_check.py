"""Whether a training can learn: asked of a few samples, told in one line, with what helps."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from eqprop.data import one_hot
from eqprop.estimator import Estimator
from eqprop.network import Cost, State
from eqprop.network.local import Quadratic
from eqprop.relaxation import Euler, Solver, recommended_solver
from eqprop.relaxation.solver import KEPT
from eqprop.training.callback import Callback
from eqprop.training.scheduler import learning_rates
from eqprop.training.session import Row, Session
from eqprop.training.snapshot import random_states_kept

log = logging.getLogger(__name__)

SAMPLES, DRAWN = 32, 256  # that are looked at; more, where the noise of drawn starts averages out
LOOKS = (1, 3)  # epochs after which it is asked again
DRIFT = 2.0  # of what the nudge adds to a gradient: more of it is there without a nudge
RISEN = 2.0  # times what it was: the cost of the samples
BELOW = 1e-4  # of the largest gradient: a layer's that is smaller is lost
LONGER = (2, 4, 8, 16)  # times the steps: remedies that are tried
STEPS, MANY = 30, 100  # fewer prove nothing; after so many, more than a little is learnt
NOTHING, LITTLE = 0.05, 0.25  # of what the commonest class leaves, is right beside it


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


class LearningCheck(Callback):
    """Looks at some samples' gradient before the first step and after some epochs.

    Once in a run it says what keeps a training from learning, and which settings it has found to
    help. Looking changes nothing, and no step waits for it.
    """

    def __init__(self) -> None:
        self._told = False
        self._cost = math.inf  # at the first look

    def on_start(self, session: Session) -> None:
        if session.step == 0:
            self._look(session)

    def on_epoch(self, session: Session, row: Row, improved: bool) -> None:
        if row["epoch"] in LOOKS:
            self._look(session)
        if row["epoch"] == session.epochs and "accuracy/train" in row:
            self._judge(session, float(row["accuracy/train"]))

    def _look(self, session: Session) -> None:
        if self._told:
            return
        try:
            with random_states_kept(session):
                signal = look(session, session.solver, session.estimator)
                fault = signal.fault or self._rising(session, signal.cost)
                if fault is None or (begins(session) and signal.largest > 0.0):
                    return
                found = " or ".join(islice(remedies(session, signal), 2))
        except Exception as error:  # what cannot be looked at must not cost the run
            log.info("whether it learns is not looked at (%s: %s)", type(error).__name__, error)
            self._told = True
            return
        self._tell(session, f"{fault}; choose {found}")

    def _rising(self, session: Session, cost: float) -> str | None:
        """What a cost says that has risen instead of fallen."""
        first, self._cost = self._cost, min(cost, self._cost)
        if not RISEN * first < cost < math.inf:
            return None
        rate = max(learning_rates(session.optimizer, session.network).values(), default=0.0)
        how = f"optimizer.lr ({rate:g}) may be too large"
        return f"the cost of some training samples has risen from {first:.2g} to {cost:.2g}, {how}"

    def _judge(self, session: Session, accuracy: float) -> None:
        """After the last epoch: whether it has learnt more than the commonest class."""
        counts = torch.bincount(session.data.train.y)
        most = float(counts.max() / counts.sum())
        least = most + NOTHING * (1.0 - most)
        if session.step >= MANY:
            least = max(least, min(3.0 * most, most + LITTLE * (1.0 - most)))
        if session.step >= STEPS and accuracy < least:
            what = f"little is learnt: {100 * accuracy:.1f} % of the training samples are right"
            what = f"{what}, and {100 * most:.1f} % are of one class"
            self._tell(session, f"{what}; choose {last_resort(session)}, or another optimizer.lr")

    def _tell(self, session: Session, line: str) -> None:
        if not self._told:
            self._told = True
            log.warning("step %d: %s", session.step, line)


def begins(session: Session) -> bool:
    """Whether states are carried along, and there are none yet."""
    return session.solver.init in KEPT and session.latest is None


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


def remedies(session: Session, signal: Signal) -> Iterator[str]:
    """Settings that mend what is at fault, the likeliest first; those of the solver are tried."""
    solver, network = session.solver, session.network
    recommended, already = recommended_solver(network), ""
    if type(recommended) is not type(solver) or vars(recommended) != vars(solver):
        yield "dynamics=auto"
        already = "dynamics=auto "
    others = {}
    if signal.largest == 0.0 and solver.init not in ("normal", *KEPT):
        others["dynamics.init=normal"] = _with(solver, init="normal")
    if isinstance(solver, Euler) and solver.clip is None and any(p.pieces for p in network.phi[1:]):
        others["dynamics.clip=auto"] = _with(solver, clip="auto")
    for factor in LONGER:
        n = factor * solver.n_relax
        both = {"n_nudged": n} if solver.n_nudged == solver.n_relax else {}
        others[f"dynamics.n_relax={n}"] = _with(solver, n_relax=n, **both)
    for settings, other in others.items():
        found = look(session, other, session.estimator)
        if found.finite and found.fault is None:
            yield settings
            return
    yield last_resort(session).removeprefix(already)


def last_resort(session: Session) -> str:
    """What trains by every solver, and through many layers."""
    if session.network.feedforward:
        return "dynamics=auto model.activation=tanh model.weight_init=glorot"
    return "dynamics=auto model.activation=hard_sigmoid"


def _with(solver: Solver, **settings: object) -> Solver:
    other = copy.copy(solver)
    for name, value in settings.items():
        setattr(other, name, value)
    return other


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
        for (name, _), g in pairs
        if g.dim() > 1 and ".feedback." not in name
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
