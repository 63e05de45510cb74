"""A phase with a tolerance in which each sample stops by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from eqprop.network import State
from eqprop.network.cost import per_sample
from eqprop.network.residuals import sample_residuals
from eqprop.relaxation.result import StopReason


def relax_each(
    state: State,
    n_steps: int,
    tol: float,
    gradient: Callable[[], Sequence[Tensor | None]],
    step: Callable[[], None],
) -> tuple[int, StopReason, None]:
    """Take up to ``n_steps``; a sample whose residual falls below ``tol`` moves no more.

    So what becomes of it does not depend on the rest of its batch. Its last step is the one from
    the state that the residual is of, as where the mean of a batch stops all.
    """
    done: Tensor | None = None
    for taken in range(1, n_steps + 1):
        own = sample_residuals(gradient())
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
