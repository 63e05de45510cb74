"""Anderson-accelerated fixed-point iteration, safeguarded by the residual."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor
from typing_extensions import Doc

from eqprop.network import Network, Nudge, State
from eqprop.relaxation.settings import Steps, StepSize
from eqprop.relaxation.solver import Solver


class Anderson(Solver):
    """Extrapolates the Euler map ``g(u) = u − step · ∂F/∂u`` from its last ``memory`` values.

    Each sample on its own: the next state is the combination ``Σ α_k g(u_k)``, Σ α = 1, whose
    residuals ``Σ α_k (g(u_k) − u_k)`` are smallest. Where an extrapolated state's residual is
    larger than the last, or its energy than before the step, it is taken back: that sample takes
    the plain Euler step instead, and its history is forgotten, so that the worst case is Euler.
    Source: Walker & Ni (2011), as a regularised normal equation.

    Args:
        dt: step size of the Euler map, in units of time.
        memory: states to combine; each costs two copies of the state.
        regularisation: added to the normal equation's diagonal, relative to its trace.
        n_relax, keys: see :class:`Solver`.
    """

    follows_slope: ClassVar = True

    def __init__(
        self,
        dt: StepSize = 0.2,
        memory: Annotated[
            int, Ge(2), Le(50), Doc("states that are combined; each costs two copies of the state")
        ] = 5,
        regularisation: Annotated[
            float, Gt(0), Doc("added to the normal equation's diagonal, relative to its trace")
        ] = 1e-8,
        n_relax: Steps = 15,
        **keys: Any,
    ) -> None:
        super().__init__(n_relax, dt=dt, **keys)
        self.memory = memory
        self.regularisation = regularisation
        self._taken = 0
        self._history = self._residuals = torch.empty(0)  # (batch, memory, units)
        self._valid = torch.empty(0)  # (batch, memory): 1 where an entry counts
        self._last_norm = self._euler = self._plain = torch.empty(0)

    def capture_obstacle(self) -> str | None:
        return "dynamics=anderson solves equations that wait for the GPU"

    def begin(self, network: Network, state: State, nudge: Nudge | None) -> None:
        free = [state.u[layer] for layer in state.free]
        like, units = free[0], sum(layer[0].numel() for layer in free)
        shape = (state.batch_size, self.memory, units)
        if self._history.shape != shape or self._history.dtype != like.dtype:
            self._history, self._residuals = like.new_zeros(shape), like.new_zeros(shape)
            self._valid = like.new_zeros(shape[:2])
            self._euler = like.new_zeros(shape[0], units)
        self._taken = 0
        self._valid.zero_()
        self._last_norm = like.new_full((shape[0],), torch.inf)
        self._plain = like.new_ones(shape[0], dtype=torch.bool)

    def step(self, network: Network, state: State, nudge: Nudge | None) -> None:
        gradient = _flat(self.gradient(network, state, nudge))
        u = _flat([state.u[layer] for layer in state.free])
        norm = torch.linalg.vector_norm(gradient, dim=1)
        taken_back = ~(norm <= self._last_norm) & ~self._plain
        self._last_norm = torch.where(taken_back, self._last_norm, norm)
        self._valid *= (~taken_back).unsqueeze(1)
        self._euler = torch.where(
            taken_back.unsqueeze(1), self._euler, u - self.dt / self.tau * gradient
        )
        slot = self._taken % self.memory
        self._taken += 1
        self._residuals[:, slot] = -self.dt / self.tau * gradient
        self._history[:, slot] = self._euler
        self._valid[:, slot] = (~taken_back).to(self._valid.dtype)
        mixed = torch.einsum("bm,bmn->bn", self._weights(), self._history)
        self._plain = taken_back | (self._valid.sum(1) <= 1.0)
        before = network.energies(state, nudge)
        _assign(network, state, torch.where(self._plain.unsqueeze(1), self._euler, mixed))
        after = network.energies(state, nudge)
        rose = ~(after <= before) & ~self._plain
        self._plain |= rose
        self._valid *= (~rose).unsqueeze(1)
        _assign(network, state, torch.where(self._plain.unsqueeze(1), self._euler, mixed))

    def _weights(self) -> Tensor:
        """α (batch, memory): the residuals' smallest combination, over the valid entries."""
        masked = self._residuals * self._valid.unsqueeze(2)
        gram = masked @ masked.transpose(1, 2)
        # torch solves no equations in bfloat16, whose three digits would be too few for these
        gram = gram.to(torch.promote_types(gram.dtype, torch.float32))
        valid = self._valid.to(gram.dtype)
        trace = gram.diagonal(dim1=1, dim2=2).sum(1)
        tiny = torch.finfo(gram.dtype).tiny
        ridge = (self.regularisation * trace + tiny).unsqueeze(1) + trace.unsqueeze(1) * 1e3 * (
            1.0 - valid
        )
        gram = gram + torch.diag_embed(ridge)
        solution = torch.linalg.solve_ex(gram, valid.unsqueeze(2))[0].squeeze(2) * valid
        weights = torch.nan_to_num(solution / solution.sum(1, keepdim=True))
        return weights.to(self._valid.dtype)


def _flat(layers: Sequence[Tensor | None]) -> Tensor:
    return torch.cat([layer.flatten(1) for layer in layers if layer is not None], 1)


def _assign(network: Network, state: State, flat: Tensor) -> None:
    at = 0
    for i in state.free:
        layer = state.u[i]
        size = layer[0].numel()
        layer.copy_(flat[:, at : at + size].view_as(layer))
        low, high = network.domains[i]
        if math.isfinite(low) or math.isfinite(high):
            layer.clamp_(low, high)
        state.moved(i)
        at += size
