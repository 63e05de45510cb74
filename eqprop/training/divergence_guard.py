"""The divergence guard: stops a training at the step at which something is not finite."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from eqprop.estimator import Estimate
from eqprop.run.errors import RunError
from eqprop.training.callback import Callback
from eqprop.training.session import Session

log = logging.getLogger(__name__)

FAR = 0.5
"""A phase is far from equilibrium where this fraction of its first residual is left."""


class DivergenceGuard(Callback):
    """Judges every step by the state it ends with and the gradients about to move the weights.

    What an optimizer breaks shows in the next step, and in ``check`` before anything is saved. At
    log steps it says, once for each phase, where a relaxation stops far from its equilibrium.

    Args:
        deferred: note the first bad step on the device and ask for it at log steps only, as on a
            GPU, where asking at every step would wait, and as a step that is replayed must.
    """

    def __init__(self, deferred: bool = False) -> None:
        self.deferred = deferred
        self._step: Tensor | None = None  # counted on the device, where a replayed step can
        self._first_bad = torch.empty(0)
        self._warned: set[str] = set()

    def on_start(self, session: Session) -> None:
        if self.deferred or session.device.type == "cuda":
            self._step = torch.full(
                (), float(session.step), dtype=torch.float64, device=session.device
            )
            self._first_bad = torch.full_like(self._step, math.inf)

    def on_gradient(self, session: Session, estimate: Estimate) -> None:
        """Judge a step.

        Raises:
            RunError: on a CPU, if it is not finite.
        """
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
        for name, phase in estimate.phases.items():
            first, last = phase.first_residual, phase.residual
            if name in self._warned or not first or last is None or last <= FAR * first:
                continue
            self._warned.add(name)
            log.warning(
                "step %d: the %s phase stops far from equilibrium: %d steps took the residual from "
                "%.3g to %.3g; %s",
                *(session.step, name, phase.steps, first, last, _closer(session, name)),
            )

    def on_step(self, session: Session, samples: int) -> None:
        if session.at.batches == session.steps_an_epoch:  # before it is evaluated and recorded
            self.check(session)

    def check(self, session: Session) -> None:
        """Read all weights and the optimizer's state, before they are saved.

        Raises:
            RunError: if one of them, or a step before, is not finite.
        """
        self._settle(session)
        kept = [tensor.detach() for _, tensor in _trained(session)]
        if kept:
            found = torch._foreach_norm(kept)
            norms = torch.stack([norm.to(session.device, torch.float32) for norm in found])
            if not math.isfinite(norms.sum().item()):
                _stop(session, session.step, [])

    def _settle(self, session: Session) -> None:
        """Ask a GPU for what it has noted."""
        if self._step is not None and math.isfinite(step := float(self._first_bad)):
            _stop(session, int(step), [])


def _stop(session: Session, step: int, gradients: list[Tensor]) -> None:
    what = next(_not_finite(session, gradients), "the energy")
    epoch = 1 + (step - 1) // session.steps_an_epoch
    raise RunError(f"step {step} (epoch {epoch}): {what} is not finite; lower {remedies(session)}")


def _trained(session: Session) -> Iterator[tuple[str, Tensor]]:
    names = {id(p): name for name, p in session.network.named_parameters()}
    yield from session.network.named_parameters()
    for parameter, values in session.optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                yield f"the optimizer's {key} of {names.get(id(parameter), 'a parameter')}", value


def _not_finite(session: Session, gradients: list[Tensor]) -> Iterator[str]:
    """What is not finite, the likely cause first."""
    yield from (name for name, tensor in _trained(session) if _is_bad(tensor))
    for state in session.states.values():
        for level, layer in enumerate(state.u):
            if _is_bad(layer):
                yield f"the state of layer {level}"
    named = zip(session.network.named_parameters(), gradients, strict=False)
    yield from (f"the gradient of {name}" for (name, _), g in named if _is_bad(g))


def _is_bad(tensor: Tensor) -> bool:
    return not bool(torch.isfinite(tensor).all())


def remedies(session: Session) -> str:
    """The settings that a training which diverges may lower, with their values."""
    found = {
        "dynamics.dt": getattr(session.solver, "dt", None),
        "optimizer.lr": session.optimizer.param_groups[0].get("lr"),
        **session.estimator.remedies(),
    }
    shown = [f"{key} ({v:g})" for key, v in found.items() if isinstance(v, (int, float))]
    return " or ".join(filter(None, [", ".join(shown[:-1]), shown[-1] if shown else "the steps"]))


def _closer(session: Session, phase: str) -> str:
    solver = session.solver
    key = "n_relax" if phase == "free" or solver.n_nudged == solver.n_relax else "n_nudged"
    return (
        f"raise dynamics.{key} ({getattr(solver, key)}), or lower dynamics.dt ({solver.dt:g}) if "
        "it swings, or raise it if it creeps"
    )
