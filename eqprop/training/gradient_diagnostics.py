"""How right the training's own gradients are, every so many steps: ``gradient_alignment/…``."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from eqprop.data import one_hot
from eqprop.estimator import Estimate, ImplicitDifferentiation
from eqprop.estimator.alignment import Alignment, compare, metrics
from eqprop.network import State
from eqprop.run.errors import UserError
from eqprop.run.redact import redact
from eqprop.run.text import one_line
from eqprop.training.callback import Callback
from eqprop.training.session import Session
from eqprop.training.snapshot import random_states_kept

log = logging.getLogger(__name__)


class GradientDiagnostics(Callback):
    """Compares every ``every``-th step's gradient with implicit differentiation, on its batch.

    The reference is computed before the step, at the same weights and from the same first state,
    in a state of its own: the training goes on as if nobody had looked.
    """

    def __init__(self, every: int) -> None:
        self.every: int | None = every
        self.reference = ImplicitDifferentiation()
        self._states: dict[int, State] = {}
        self._wanted: list[Tensor] | None = None
        self._found: dict[str, Alignment] = {}
        self._told: set[str] = set()

    def before_step(self, session: Session, x: Tensor, y: Tensor) -> bool:
        self._wanted, self._found = None, {}
        if self.every is None or session.step % self.every != 0:
            return False
        try:
            with random_states_kept(session):
                self._wanted = self._solved(session, x, y)
        except Exception as error:  # what cannot be compared must not cost the run
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            why = redact(one_line(f"{kind}{error}", 300))
            log.warning("gradients are not compared any more; the run goes on (%s)", why)
            self.every = None
        return self._wanted is not None

    def on_gradient(self, session: Session, estimate: Estimate) -> None:
        if self._wanted is not None:  # never in a captured step: that is not a measured one
            names = [name for name, _ in session.network.named_parameters()]
            self._found = compare(names, estimate.gradients, self._wanted)

    def on_measurement(self, session: Session, estimate: Estimate) -> None:
        estimate.metrics.update(metrics(self._found))
        for name, one in self._found.items():
            if one.note is not None and name not in self._told:
                self._told.add(name)
                log.info("step %d: no alignment of %s: %s", session.step, name, one.note)

    def _solved(self, session: Session, x: Tensor, y: Tensor) -> list[Tensor]:
        state = self._state(session, len(x))
        state.clamp(0, x)
        target = one_hot(y, session.data.n_classes, x.dtype)
        parts = session.network, state, session.solver, session.cost, target
        return self.reference.estimate(*parts).gradients

    def _state(self, session: Session, batch_size: int) -> State:
        """A state like the training's as a step begins, that draws the same noise."""
        theirs = session.state(batch_size)
        if batch_size not in self._states:
            generator = torch.Generator(session.device)
            self._states[batch_size] = session.network.new_state(batch_size, generator)
        ours = self._states[batch_size]
        if ours.generator is not None and theirs.generator is not None:
            ours.generator.set_state(theirs.generator.get_state())
        ours.carries = theirs.carries
        if ours.carries:
            ours.u[:] = theirs.u
        return ours
