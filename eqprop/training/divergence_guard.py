"""The divergence guard: stops a training at the step at which something is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from eqprop.estimator import Estimate
from eqprop.run.errors import RunError
from eqprop.training.callback import Callback
from eqprop.training.scheduler import learning_rates
from eqprop.training.session import Session


class DivergenceGuard(Callback):
    """Judges every step by the state it ends with and the gradients about to move the weights.

    What an optimizer breaks shows in the next step, and in ``check`` before anything is saved.
    ``deferred``, and on a GPU, it asks for what the device has noted at log steps only.
    """

    def __init__(self, deferred: bool = False) -> None:
        self.deferred = deferred
        self._step: Tensor | None = None  # counted on the device, where a replayed step can
        self._first_bad = torch.empty(0)

    def on_start(self, session: Session) -> None:
        if self.deferred or session.device.type == "cuda":
            step = float(session.step)
            self._step = torch.tensor(step, dtype=torch.float64, device=session.device)
            self._first_bad = torch.full_like(self._step, math.inf)

    def on_gradient(self, session: Session, estimate: Estimate) -> None:
        """Judge a step. Raises RunError on a CPU, if it is not finite."""
        state = session.state(len(estimate.output))
        seen = [*estimate.gradients, *(state.u[layer] for layer in state.free)]
        total = torch.stack([tensor.sum() for tensor in seen]).sum()
        if self._step is not None:
            self._step.add_(1.0)
            bad = self._step.masked_fill(torch.isfinite(total), math.inf)
            torch.minimum(self._first_bad, bad, out=self._first_bad)
        elif not math.isfinite(total.item()):
            _stop(session, session.step, estimate.gradients)

    def on_measurement(self, session: Session, estimate: Estimate) -> None:
        self._settle(session)

    def on_step(self, session: Session, samples: int) -> None:
        if session.at.batches == session.steps_an_epoch:  # before it is evaluated and recorded
            self.check(session)

    def check(self, session: Session) -> None:
        """Raise RunError if a weight, the optimizer's state, or a step before is not finite."""
        self._settle(session)
        kept = [tensor.detach() for _, tensor in _trained(session)]
        if not math.isfinite(torch.nn.utils.get_total_norm(kept)):
            _stop(session, session.step)

    def _settle(self, session: Session) -> None:
        """Ask a GPU for what it has noted."""
        if self._step is not None and math.isfinite(step := float(self._first_bad)):
            _stop(session, int(step))


def _stop(session: Session, step: int, gradients: Sequence[Tensor] = ()) -> None:
    bad = (name for name, tensor in _seen(session, gradients) if not tensor.isfinite().all())
    epoch, what = 1 + (step - 1) // session.steps_an_epoch, next(bad, "the energy")
    raise RunError(f"step {step} (epoch {epoch}): {what} is not finite; lower {remedies(session)}")


def _trained(session: Session) -> Iterator[tuple[str, Tensor]]:
    names = {id(p): name for name, p in session.network.named_parameters()}
    yield from session.network.named_parameters()
    for parameter, values in session.optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                yield f"the optimizer's {key} of {names.get(id(parameter), 'a parameter')}", value


def _seen(session: Session, gradients: Sequence[Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Where numbers may not be finite, the likely cause first."""
    yield from _trained(session)
    for state in session.states.values():
        yield from ((f"the state of layer {number}", layer) for number, layer in enumerate(state.u))
    names = (f"the gradient of {name}" for name, _ in session.network.named_parameters())
    yield from zip(names, gradients, strict=False)


def remedies(session: Session) -> str:
    """The settings that a training which diverges may lower, with their values."""
    rates = learning_rates(session.optimizer, session.network).values()
    found = {
        "dynamics.dt": getattr(session.solver, "dt", None),
        "optimizer.lr": max(rates, default=None),
        **session.estimator.remedies(),
    }
    shown = [f"{key} ({v:g})" for key, v in found.items() if isinstance(v, (int, float))]
    return " or ".join(shown) or "the steps"
