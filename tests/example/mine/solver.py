"""A solver by its step."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge, Lt
from torch import Tensor
from typing_extensions import Doc

from eqprop.network import Network, Nudge, State
from eqprop.relaxation import Solver


class Momentum(Solver):
    """Gradient descent with momentum: v ← momentum · v − (dt/τ) ∂F/∂u, u ← u + v."""

    def __init__(
        self,
        momentum: Annotated[float, Ge(0), Lt(1), Doc("share of the last step that is kept")] = 0.5,
        **keys: Any,
    ) -> None:
        super().__init__(**keys)
        self.momentum = momentum
        self._velocity: list[Tensor] = []

    def begin(self, network: Network, state: State, nudge: Nudge | None) -> None:
        self._velocity = [torch.zeros_like(layer) for layer in state.u]

    def step(self, network: Network, state: State, nudge: Nudge | None) -> None:
        gradient = network.gradient(state, nudge)
        for layer, velocity, grad in zip(state.u, self._velocity, gradient, strict=True):
            if grad is not None:  # not clamped
                velocity.mul_(self.momentum).sub_(grad, alpha=self.dt / self.tau)
                layer.add_(velocity)
