"""Noise of the states, and few bits: of states or of weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor
from typing_extensions import Doc

from eqprop.estimator import Estimator, HolomorphicEquilibriumPropagation
from eqprop.network import State
from eqprop.network.cost import per_sample
from eqprop.training.noise.noise import Noise, needs_phases

At = Annotated[
    Literal["readout", "step"],
    Doc("when states are disturbed: as a phase's end is read, or after each step of all phases"),
]


class _OfStates(Noise, ABC):
    """Disturbs the free layers: as they are read at a phase's end, or after each step."""

    refused: tuple[type[Estimator], ...] = (HolomorphicEquilibriumPropagation,)
    # its complex states lie beside the one that is disturbed
    _each = False  # whether a sample may not depend on the others of its batch

    def __init__(self, at: At) -> None:
        self.at = at
        self.each_step = at == "step"

    @abstractmethod
    def change(self, u: Tensor, generator: torch.Generator | None) -> None:
        """Disturb a layer (batch, *shape) in place."""

    def begin_batch(self, state: State) -> None:
        self._met = False

    def step(self, state: State) -> None:
        self._change(state)
        for layer in state.free if self.network.bounded else ():
            state.u[layer].clamp_(*self.network.domains[layer])

    @contextmanager
    def reading(self, state: State) -> Iterator[None]:
        if self.each_step:
            yield
            return
        before = state.copy()
        try:
            self._change(state)
            yield
        finally:
            state.restore(before)

    @torch.no_grad()
    def _change(self, state: State) -> None:
        self._met = True
        self._each = state.draws is not None
        for layer in state.free:
            self.change(state.u[layer], state.generator)
            state.moved(layer)


class StateNoise(_OfStates):
    """Each free unit u becomes u + strength · ξ, ξ ~ N(0, 1).

    With ``readout`` what the weight gradient reads of a phase is noisy, anew for each reading, and
    the state itself is not. With ``step`` the dynamics is, whatever the size of its steps.
    """

    capturable: ClassVar = True

    def __init__(
        self,
        strength: Annotated[
            float, Ge(0), Doc("standard deviation, in the unit of the state u")
        ] = 0.01,
        at: At = "readout",
    ) -> None:
        super().__init__(at)
        self.strength = strength

    def change(self, u: Tensor, generator: torch.Generator | None) -> None:
        u.add_(torch.empty_like(u).normal_(generator=generator), alpha=self.strength)

    @classmethod
    def check_config(cls, config: Any) -> None:
        """Refuse an estimator without phases. Raises ValueError: one line."""
        needs_phases(config, "noise=state", cls.refused)
        _needs_plain_steps(config)


class Quantised(_OfStates):
    """The phases see weights, or states, of n bits; the weights that learn are exact.

    So many levels lie evenly from the least to the largest element of each tensor: of a weight, or
    of a layer's batch of states. Predictions are made by the quantised network too, with levels of
    each sample's own.
    """

    capturable: ClassVar = True
    evaluated = True

    def __init__(
        self,
        bits: Annotated[
            int, Ge(1), Le(16), Doc("2^bits levels from a tensor's least to its largest element")
        ] = 4,
        of: Annotated[
            Literal["weights", "state"], Doc("what is rounded; biases are exact")
        ] = "weights",
        at: At = "readout",
    ) -> None:
        super().__init__(at)
        self.bits = bits
        self.of = of
        self.each_step = of == "state" and at == "step"
        self.refused = type(self).refused if of == "state" else ()

    def begin_batch(self, state: State) -> None:
        self._met = self.of == "weights"
        if self.of == "weights":
            self.weights.put(self._quantise, state)

    @contextmanager
    def reading(self, state: State) -> Iterator[None]:
        if self.of == "weights":
            yield
            return
        with super().reading(state):
            yield

    def change(self, u: Tensor, generator: torch.Generator | None) -> None:
        quantise_(u, self.bits, self._each)

    def _quantise(self, weights: list[Tensor]) -> None:
        for weight in weights:
            quantise_(weight, self.bits)

    @classmethod
    def check_config(cls, config: Any) -> None:
        """Refuse states of an estimator without phases. Raises ValueError: one line."""
        if getattr(config.noise, "of", "weights") == "state":
            needs_phases(config, "noise.of=state", cls.refused)
            _needs_plain_steps(config)


def quantise_(x: Tensor, bits: int, each: bool = False) -> Tensor:
    """Round ``x`` in place to the nearest of 2^bits levels from its least to its largest element.

    They are (max − min) / (2^bits − 1) apart; with ``each``, of every sample of a batch.
    """
    low, high = torch.aminmax(x)
    if each:
        low, high = (per_sample(end, x) for end in torch.aminmax(x.flatten(1), dim=1))
    step = (high - low) / (2**bits - 1)
    least = torch.finfo(x.dtype).tiny  # where all elements are the same
    return x.sub_(low).div_(step.clamp_min(least)).round_().mul_(step).add_(low)


def _needs_plain_steps(config: Any) -> None:
    if getattr(config.noise, "at", None) == "step" and getattr(config.dynamics, "adaptive", False):
        why = "dynamics.adaptive=true takes back steps that raise the energy, as noise does"
        raise ValueError(f"noise.at=step: {why}; choose dynamics.adaptive=false")
