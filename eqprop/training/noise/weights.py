"""Noise of the weights, and of their gradients."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from eqprop.estimator import (
    AsymmetricEquilibriumPropagation,
    Estimate,
    HolomorphicEquilibriumPropagation,
)
from eqprop.estimator.estimator import Update
from eqprop.network import Network, State
from eqprop.training.noise.noise import Noise, needs_phases

Relative = Annotated[
    float, Ge(0), Doc("standard deviation, as a share of each weight; biases are exact")
]


class WeightNoise(Noise):
    """The phases see W ⊙ (1 + strength · ξ), ξ ~ N(0, 1) anew for each batch: programming noise."""

    capturable: ClassVar = True

    def __init__(self, strength: Relative = 0.03) -> None:
        self.strength = strength

    def begin_batch(self, state: State) -> None:
        factors = [
            torch.empty_like(w).normal_(1.0, self.strength, generator=state.generator)
            for w in self.weights.tensors
        ]
        self.weights.put(lambda weights: _multiply(weights, factors), state)


class Mismatch(Noise):
    """The nudged phases see W ⊙ (1 + strength · ξ), ξ ~ N(0, 1) once and for all from the seed.

    The free phase, and so an evaluation, sees W. A phase is read by the weights that it ran with.
    """

    capturable: ClassVar = True
    refused = (HolomorphicEquilibriumPropagation, AsymmetricEquilibriumPropagation)

    def __init__(self, strength: Relative = 0.01) -> None:
        self.strength = strength
        self.factors: list[Tensor] = []

    def begin(self, network: Network, seed: int) -> None:
        super().begin(network, seed)
        # not the stream of torch, from which the first weights have been drawn
        draws = np.random.default_rng([seed, 1])
        self.factors = []
        for w in self.weights.tensors:
            drawn = torch.from_numpy(1.0 + self.strength * draws.standard_normal(tuple(w.shape)))
            self.factors.append(torch.empty_like(w).copy_(drawn))

    def begin_batch(self, state: State) -> None:
        self._met = False

    def phase(self, state: State, nudged: bool) -> None:
        self._met |= nudged
        if nudged and not self.weights.in_place:
            self.weights.put(lambda weights: _multiply(weights, self.factors), state)
        elif not nudged:
            self.weights.take_back(state)

    @classmethod
    def check_config(cls, config: Any) -> None:
        """Refuse an estimator without phases. Raises ValueError: one line."""
        needs_phases(config, "noise=mismatch", cls.refused)


class GradientNoise(Noise):
    """Each gradient g becomes g + strength · RMS(g) · ξ, ξ ~ N(0, 1), RMS over its elements."""

    capturable: ClassVar = True

    def __init__(
        self,
        strength: Annotated[
            float, Ge(0), Doc("standard deviation, as a share of each gradient's RMS")
        ] = 0.1,
    ) -> None:
        self.strength = strength

    def apply(self, gradients: list[Tensor], update: Update, state: State) -> None:
        update(self._noisy([g.clone() for g in gradients], state))

    def end_batch(self, state: State, found: Estimate) -> None:
        if not found.applied:
            self._noisy(found.gradients, state)

    def _noisy(self, gradients: list[Tensor], state: State) -> list[Tensor]:
        for g in gradients:
            noise = torch.empty_like(g).normal_(generator=state.generator)
            g.add_(noise.mul_(g.square().mean().sqrt()), alpha=self.strength)
        return gradients


def _multiply(weights: list[Tensor], factors: list[Tensor]) -> None:
    for weight, factor in zip(weights, factors, strict=True):
        weight.mul_(factor)
