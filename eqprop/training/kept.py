"""The states that a training keeps of its samples, for ``dynamics.init=per_example``."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from eqprop.network import State

log = logging.getLogger(__name__)


class KeptStates:
    """Where the last step of each training sample ended; zeros before its first.

    From the first batch on, a tensor (samples, *shape) on the device for each layer above the
    input.
    """

    def __init__(self, n_samples: int) -> None:
        self.n_samples = n_samples
        self.layers: list[Tensor] = []
        self._placed = False

    @torch.no_grad()
    def put(self, state: State, samples: Tensor) -> None:
        """Have ``state`` start where these samples (batch,), by their indices, have ended."""
        self._place(state)
        for layer, kept in zip(state.u[1:], self.layers, strict=True):
            layer.copy_(kept.index_select(0, samples))
        state.forget()

    @torch.no_grad()
    def keep(self, state: State, samples: Tensor) -> None:
        """Take over where these samples end now."""
        for layer, kept in zip(state.u[1:], self.layers, strict=True):
            kept.index_copy_(0, samples, layer)

    def state_dict(self) -> dict[str, Any]:
        return {"layers": self.layers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.layers, self._placed = list(state["layers"]), False
        if any(len(layer) != self.n_samples for layer in self.layers):
            raise ValueError(
                f"it holds the states of another number of samples than {self.n_samples}"
            )

    def _place(self, state: State) -> None:
        if self._placed:
            return
        self._placed = True
        free = state.u[1:]
        numbers = self.n_samples * sum(math.prod(u.shape[1:]) for u in free)
        size = numbers * free[0].element_size() / 1e6
        log.info("%.1f MB keep the states of %d samples", size, self.n_samples)
        if self.layers:
            self.layers = [kept.to(u) for kept, u in zip(self.layers, free, strict=True)]
        else:
            self.layers = [u.new_zeros(self.n_samples, *u.shape[1:]) for u in free]
