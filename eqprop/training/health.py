"""Whether the numbers are still numbers, and whether a phase came near its equilibrium."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eqprop.estimator import Estimate
from eqprop.run.errors import RunError

if TYPE_CHECKING:
    from eqprop.training.loop import Training

log = logging.getLogger(__name__)

FAR = 0.5
"""A phase is far from equilibrium where this fraction of its first residual is left."""


class Health:
    """Stops a training at the step at which something in it is not finite.

    A step is judged by the sums of its last states and of the gradients of its biases, each of
    which sums a layer's whole factor of the weight gradient: a hundredth of the work of reading
    the weights, and nothing that is not finite leaves all of them finite. What an optimizer breaks
    shows in the states of the next step, and in ``check_weights`` before anything is saved.

    On a GPU the first bad step is noted on the device, and asked for by ``settle`` only.

    Args:
        deferred: note it on a CPU too, as a step that is replayed must.
    """

    def __init__(self, deferred: bool = False) -> None:
        self.deferred = deferred
        self._step: Tensor | None = None  # the step's number, where a replayed step can read it
        self._first_bad = torch.empty(0)
        self._warned: set[str] = set()

    def begin(self, training: Training) -> None:
        """Tell the device which step comes, for ``check`` to note; the host waits for nothing."""
        data = training.data.train.x
        if self._step is not None:
            self._step.fill_(training.step)
        elif self.deferred or data.is_cuda:
            self._note_on(data.device, training.step)

    def _note_on(self, device: torch.device, step: int) -> None:
        self._step = torch.full((), float(step), dtype=torch.float64, device=device)
        self._first_bad = torch.full_like(self._step, math.inf)

    def check(self, training: Training, estimate: Estimate) -> None:
        """Judge the step that is about to move the weights.

        Raises:
            RunError: on a CPU, if it is not finite.
        """
        small = [g for g in estimate.gradients if g.dim() < 2] or estimate.gradients
        total = sum((g.sum() for g in small), training.model.state_sum())
        if total.is_cuda and self._step is None:
            self._note_on(total.device, training.step)
        if self._step is not None:
            step = self._step.masked_fill(torch.isfinite(total), math.inf)
            torch.minimum(self._first_bad, step, out=self._first_bad)
        elif not math.isfinite(total.item()):
            self._stop(training, training.step, estimate.gradients)

    def settle(self, training: Training) -> None:
        """Ask a GPU for what it has noted.

        Raises:
            RunError: if some step was not finite.
        """
        if self._step is not None and math.isfinite(step := float(self._first_bad)):
            self._stop(training, int(step), [])

    def check_weights(self, training: Training) -> None:
        """Read all weights and the optimizer's state, before they are saved.

        Raises:
            RunError: if one of them is not finite.
        """
        self.settle(training)
        kept = [(name, tensor.detach()) for name, tensor in _trained(training)]
        if kept and not math.isfinite(_total([tensor for _, tensor in kept]).item()):
            self._stop(training, training.step, [])

    def _stop(self, training: Training, step: int, gradients: list[Tensor]) -> None:
        what = next(_not_finite(training, gradients), "the energy")
        raise RunError(
            f"step {step} (epoch {training.at.epoch}): {what} is not finite; "
            f"lower {_lower(training)}"
        )

    @torch.no_grad()
    def warn_if_far(self, training: Training, estimate: Estimate) -> None:
        """Say once for each phase that it stops far from equilibrium; asked at log steps only."""
        for phase, first in self._first_residuals(training, estimate):
            last = estimate.phases[phase].residual
            if last is None or first <= 0 or last <= FAR * first:
                continue
            self._warned.add(phase)
            log.warning(
                "step %d: the %s phase stops far from equilibrium, with %.0f %% of its first "
                "residual (%.3g of %.3g); %s",
                *(training.step, phase, 100 * last / first, last, first, _closer(training, phase)),
            )

    def _first_residuals(
        self, training: Training, estimate: Estimate
    ) -> Iterator[tuple[str, float]]:
        model, phases = training.model, estimate.phases
        free = phases.get("free")
        if (
            "nudged" in phases
            and "nudged" not in self._warned
            and model.c_energy.target is not None
        ):
            nudge = model.c_energy.gradient(estimate.output).flatten(1)
            rest = (free.residual if free is not None else None) or 0.0
            yield "nudged", float(torch.linalg.vector_norm(nudge, dim=1).mean()) + rest
        if free is not None and free.steps > 0 and "free" not in self._warned:
            yield "free", _residual_at_start(training)


def _total(tensors: list[Tensor]) -> Tensor:
    """A norm of all of them, which is finite only if each number in them is."""
    return torch.stack([norm.float() for norm in torch._foreach_norm(tensors)]).sum()


def _residual_at_start(training: Training) -> float:
    """The residual where the free phase starts; leaves the state and all generators as they are."""
    model, generator = training.model, training.model.generator
    state = [layer.clone() for layer in model.u]
    target = model.c_energy.target
    try:
        if generator is not None:
            model.generator = torch.Generator(generator.device).manual_seed(training.seed)
        with torch.random.fork_rng(devices=[]):
            model.set_C_target(None)
            training.solver.initialise(model)
            work = model.free_layers("gradient")
            model.total_gradient(work)
            return float(model.residual(work))
    finally:
        model.generator = generator
        model.u = state
        model.set_C_target(target)


def _trained(training: Training) -> Iterator[tuple[str, Tensor]]:
    names = {id(p): name for name, p in training.model.named_parameters()}
    yield from training.model.named_parameters()
    for parameter, values in training.optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                yield f"the optimizer's {key} of {names.get(id(parameter), 'a parameter')}", value


def _not_finite(training: Training, gradients: list[Tensor]) -> Iterator[str]:
    """What is not finite, the likely cause first."""
    for name, tensor in _trained(training):
        if _is_bad(tensor):
            yield name
    for level, layer in enumerate(training.model.u):
        if _is_bad(layer):
            yield f"the state of layer {level}"
    named = zip(training.model.named_parameters(), gradients, strict=False)
    yield from (f"the gradient of {name}" for (name, _), g in named if _is_bad(g))


def _is_bad(tensor: Tensor) -> bool:
    return not bool(torch.isfinite(tensor).all())


def _lower(training: Training) -> str:
    found: list[tuple[str, Any]] = [
        ("dynamics.dt", getattr(training.solver, "dt", None)),
        ("optimizer.lr", training.optimizer.param_groups[0].get("lr")),
        ("estimator.beta", getattr(training.estimator, "beta", None)),
    ]
    shown = [f"{key} ({value:g})" for key, value in found if isinstance(value, (int, float))]
    return " or ".join(filter(None, [", ".join(shown[:-1]), shown[-1] if shown else "the steps"]))


def _closer(training: Training, phase: str) -> str:
    solver = training.solver
    key = "n_relax" if phase == "free" or solver.n_nudged == solver.n_relax else "n_nudged"
    steps = f"raise dynamics.{key} ({getattr(solver, key)})"
    dt = getattr(solver, "dt", None)
    if isinstance(dt, (int, float)):
        return f"{steps}, or lower dynamics.dt ({dt:g}) if it swings, or raise it if it creeps"
    return steps
