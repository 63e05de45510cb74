"""When a phase with a tolerance stops: by the mean of the batch, or each sample by itself."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from eqprop.network import State
from eqprop.network.cost import per_sample
from eqprop.relaxation.result import StopReason


def stop_by_mean(
    n_steps: int, tol: float, step: Callable[[], Tensor]
) -> tuple[int, StopReason, float | None]:
    """Take up to ``n_steps``, until the residual that ``step`` returns falls below ``tol``."""
    last = None
    for taken in range(1, n_steps + 1):
        last = float(step())
        if last < tol:
            return taken, StopReason.CONVERGED, last
        if not math.isfinite(last):
            return taken, StopReason.NOT_FINITE, last
    return n_steps, StopReason.STEP_LIMIT, last


def stop_by_sample(
    state: State,
    n_steps: int,
    tol: float,
    residuals: Callable[[], Tensor],
    step: Callable[[], None],
) -> tuple[int, StopReason, None]:
    """Take up to ``n_steps``; a sample whose residual (batch,) falls below ``tol`` moves no more.

    So what becomes of it does not depend on the rest of its batch. As above, its last step is the
    one from the state that the residual is of.
    """
    done: Tensor | None = None
    for taken in range(1, n_steps + 1):
        own = residuals()
        before = [] if done is None else [state.u[layer].clone() for layer in state.free]
        step()
        if done is not None:
            for layer, old in zip(state.free, before, strict=True):
                u = state.u[layer]
                u.copy_(torch.where(per_sample(done, u), old, u))
                state.moved(layer)
        stops = (own < tol) | ~own.isfinite()
        done = stops if done is None else done | stops
        if done.all():
            return taken, StopReason.CONVERGED, None
    return n_steps, StopReason.STEP_LIMIT, None
