"""Whether a training can learn: asked of a few samples, told in one line, with what helps."""

from __future__ import annotations

import copy
import itertools
import logging
import math
import time

import torch

from eqprop.relaxation import Euler, Solver, recommended_solver
from eqprop.relaxation.settings import KEPT
from eqprop.training.callback import Callback
from eqprop.training.sampled_gradient import DRIFT, Signal, look
from eqprop.training.scheduler import learning_rates
from eqprop.training.session import Row, Session
from eqprop.training.snapshot import random_states_kept

log = logging.getLogger(__name__)

LOOKS = (1, 3)  # epochs after which it is asked again
RISEN = 2.0  # times what it was: the cost of the samples
LONGER = (2, 4, 8, 16)  # times the steps: remedies that are tried
PATIENCE = 10.0  # seconds that a training waits for them; none is begun later
STEPS, MANY = 30, 100  # fewer prove nothing; after so many, more than a little is learnt
NOTHING, LITTLE = 0.05, 0.25  # of what the commonest class leaves, is right beside it


class LearningCheck(Callback):
    """Looks at some samples' gradient before the first step and after some epochs.

    Once in a run it says what keeps a training from learning, and which settings it has found to
    help. Looking changes nothing; trying settings delays a run by about ten seconds at most.
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
                found = " or ".join(remedies(session, signal))
        except Exception as error:  # what cannot be looked at must not cost the run
            log.info("the learning check was skipped (%s: %s)", type(error).__name__, error)
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


def remedies(session: Session, signal: Signal) -> list[str]:
    """Settings that mend what is at fault, the likeliest first, as far as trying can tell."""
    solver, network = session.solver, session.network
    others = {}
    if signal.largest == 0.0 and solver.init not in ("normal", *KEPT):
        others["dynamics.init=normal"] = _with(solver, init="normal")
    if isinstance(solver, Euler) and solver.clip is None and any(p.pieces for p in network.phi[1:]):
        others["dynamics.clip=auto"] = _with(solver, clip="auto")
    for factor in LONGER:
        n = factor * solver.n_relax
        both = {"n_nudged": n} if solver.n_nudged == solver.n_relax else {}
        others[f"dynamics.n_relax={n}"] = _with(solver, n_relax=n, **both)
    until = time.monotonic() + PATIENCE
    in_time = itertools.takewhile(lambda _: time.monotonic() < until, others.items())
    found = next((words for words, other in in_time if _mends(session, other)), None)
    recommended, auto = recommended_solver(network), "dynamics=auto"
    if type(recommended) is type(solver) and vars(recommended) == vars(solver):
        return [found or last_resort(session)]
    # by weights that a training without it has led astray it cannot be judged
    if _mends(session, recommended) or (found is None and session.step > 0):
        return [auto, found or last_resort(session).removeprefix(f"{auto} ")]
    return [found or last_resort(session)]


def _mends(session: Session, solver: Solver) -> bool:
    found = look(session, solver, session.estimator)
    # a gradient that is lost by now may be the doing of the training so far
    rests = session.step > 0 and found.drifting[1] <= DRIFT
    return found.finite and (found.fault is None or rests)


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
