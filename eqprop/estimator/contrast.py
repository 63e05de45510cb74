"""Equilibrium propagation: the gradient as a contrast of nudged phases."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Gt, Predicate
from torch import Tensor
from typing_extensions import Doc

from eqprop.estimator.estimator import (
    Estimate,
    Estimator,
    Update,
    measured_energy,
    measured_layers,
    measured_relaxation,
    nudged,
    target_for,
)
from eqprop.network import Cost, Network, Nudge, State, WeightGradient
from eqprop.network.pool import Max
from eqprop.relaxation import Relaxation, Solver, StopReason

log = logging.getLogger(__name__)

Strength = float | Tensor
"""A β or a coefficient: a number, or a tensor, one number or (batch,)."""


def other_than_zero(beta: float) -> bool:
    """Whether a nudge of this strength moves the output at all."""
    return beta != 0


class Contrast(Estimator):
    """``∇θ = Σ_k c_k ∂E/∂θ(u^{β_k})``, each nudged phase relaxed from the free equilibrium.

    A phase of β = 0 is the free equilibrium itself. As the β go to zero with Σ c_k = 0 and
    Σ c_k β_k = 1 this is the gradient of the cost at the free equilibrium.

    Args:
        phases: the pairs (β_k, c_k), in the order in which they run. A subclass may choose those
            of each batch, by ``drawn``.
    """

    follows_cost: ClassVar = True

    def __init__(self, phases: Sequence[tuple[float, float]]) -> None:
        self.phases = [(float(beta), float(c)) for beta, c in phases]
        self._sum: WeightGradient | None = None

    def drawn(self, state: State) -> Sequence[tuple[Strength, Strength]]:
        """The phases of this batch. What is random comes from ``state.generator``.

        A captured step repeats it on the device: tensors that it draws are drawn anew.
        """
        return self.phases

    def estimate(
        self,
        network: Network,
        state: State,
        solver: Solver,
        cost: Cost,
        target: Tensor,
        *,
        update: Update | None = None,
        measure: bool = False,
    ) -> Estimate:
        total, target = self._gradient_sum(network), target_for(state, target)
        with torch.no_grad(), state.held():
            total.begin()
            free = solver.free_phase(network, state, measure)
            metrics: dict[str, float] = {}
            if measure:
                metrics = measured_energy(network, state, "free", cost, target)
            output = state.u[-1].clone()
            at_rest = free.reason is StopReason.EXACT  # there, the free gradient is zero
            phases = self.drawn(state)
            for c in (c for beta, c in phases if _is_free(beta) and not at_rest):
                total.add(state, c)
            last = free
            todo = [(beta, c) for beta, c in phases if not _is_free(beta)]
            start = state.copy() if len(todo) > 1 else None
            for k, (beta, c) in enumerate(todo):
                if k > 0 and start is not None:
                    state.restore(start)
                nudge, is_last = nudged(cost, target, beta), k == len(todo) - 1
                last = self.nudged_phase(network, state, solver, nudge, measure and is_last)
                total.add(state, c)
            if measure:
                metrics |= measured_energy(network, state, "nudged", cost, target)
                metrics |= _measured_phases(metrics, free, last)
                metrics |= measured_layers(network, state)
            gradients = total.finish(state)
        return Estimate(gradients, output, {"free": free, "nudged": last}, metrics)

    def nudged_phase(
        self, network: Network, state: State, solver: Solver, nudge: Nudge, measure: bool
    ) -> Relaxation:
        """Relax from the free equilibrium, where ``state`` is, to one with another output."""
        return solver.relax(network, state, nudge, solver.n_nudged, measure)

    def check_with(self, solver: Solver, cost: Cost) -> None:
        lowest = min((beta for beta, _ in self.phases), default=0.0)
        if lowest <= (least := solver.least_nudge(cost)):
            keys = ", ".join(f"{key}={value:g}" for key, value in self.remedies().items())
            raise ValueError(
                f"{keys or type(self).__name__}: its nudge of {lowest:g} is too low: this "
                f"dynamics.rule divides by 1 + beta and needs nudges > {least:g}; choose a smaller "
                "strength, or dynamics=newton"
            )

    def nudges(self, cost: Cost, target: Tensor) -> Iterator[tuple[str, Nudge]]:
        last = [beta for beta, _ in self.phases if beta != 0.0][-1]
        yield "nudged", nudged(cost, target, last)

    def capture_obstacle(self) -> str | None:
        own = type(self).estimate, type(self).nudged_phase
        known = Contrast.estimate, Contrast.nudged_phase
        return None if own == known else super().capture_obstacle()

    def _gradient_sum(self, network: Network) -> WeightGradient:
        if self._sum is None or not self._sum.fits(network):
            self._sum = WeightGradient(network)
        return self._sum


class EquilibriumPropagation(Contrast):
    """One-sided: ``∇θ = (1/β) [∂E/∂θ(u^β) − ∂E/∂θ(u⁰)]``, with a bias of order β.

    Source: Scellier & Bengio (2017), theorem 1.

    Args:
        beta: nudging strength; a negative one pushes away from the target.
    """

    order = 1

    def __init__(
        self,
        beta: Annotated[
            float, Predicate(other_than_zero), Doc("strength of the nudge towards the target")
        ] = 1.0,
    ) -> None:
        if beta == 0.0:
            raise ValueError("estimator.beta=0: must be a number other than 0")
        super().__init__([(0.0, -1.0 / beta), (beta, 1.0 / beta)])
        self.beta = beta

    def remedies(self) -> dict[str, float]:
        return {"estimator.beta": self.beta}


class CenteredEquilibriumPropagation(Contrast):
    """Centered: ``∇θ = (1/2β) [∂E/∂θ(u^β) − ∂E/∂θ(u^{−β})]``, with a bias of order β².

    Source: Laborieux et al. (2021), equation 9.

    Args:
        beta: nudging strength, positive.
    """

    order = 2

    def __init__(
        self, beta: Annotated[float, Gt(0), Doc("strength of the nudge to either side")] = 1.0
    ) -> None:
        if not beta > 0.0:
            raise ValueError(f"estimator.beta={beta}: must be a number > 0")
        super().__init__([(-beta, -0.5 / beta), (beta, 0.5 / beta)])
        self.beta = beta

    def remedies(self) -> dict[str, float]:
        return {"estimator.beta": self.beta}


class FourPointEquilibriumPropagation(Contrast):
    """``∇θ = [8 (g(β) − g(−β)) − (g(2β) − g(−2β))] / 12β, g(β) = ∂E/∂θ(u^β)``: bias of order β⁴.

    Where a unit crosses a kink of φ, or a maximum pool changes its mind, between −2β and 2β, the
    bias is of order β.
    Source: the five-point rule for a first derivative.

    Args:
        beta: nudging strength, positive; the strongest nudges are ±2β.
    """

    order = 4

    def __init__(
        self,
        beta: Annotated[float, Gt(0), Doc("half the strength of the strongest nudges")] = 0.25,
    ) -> None:
        if not beta > 0.0:
            raise ValueError(f"estimator.beta={beta}: must be a number > 0")
        near, far = 8.0 / (12.0 * beta), 1.0 / (12.0 * beta)
        super().__init__([(-2 * beta, far), (2 * beta, -far), (-beta, -near), (beta, near)])
        self.beta = beta

    def check(self, network: Network) -> None:
        kinks = {str(phi.name) for phi in network.phi[1:] if phi.pieces and not phi.is_identity}
        if any(isinstance(getattr(edge, "pool", None), Max) for edge in network.edges):
            kinks.add("pool=max")
        if kinks:
            log.warning(
                "estimator=ep_fourpoint: there are kinks (%s): where a nudge crosses one, the bias "
                "is of order beta, as that of estimator=ep, not beta^4",
                ", ".join(sorted(kinks)),
            )

    def remedies(self) -> dict[str, float]:
        return {"estimator.beta": self.beta}


class RandomSignEquilibriumPropagation(Contrast):
    """One-sided with a sign s drawn anew: ``∇θ = (s/β) [∂E/∂θ(u^{sβ}) − ∂E/∂θ(u⁰)]``.

    The mean of both signs is the centered estimate: a bias of order β² in the mean, for one nudged
    phase. Of a single draw it is of order β.
    Source: Laborieux et al. (2021).

    Args:
        beta: nudging strength, positive.
        per: whether each batch, or each example of a batch, draws a sign of its own.
    """

    order = 1  # of a single draw

    def __init__(
        self,
        beta: Annotated[float, Gt(0), Doc("strength of the nudge to either side")] = 1.0,
        per: Annotated[
            Literal["batch", "example"], Doc("what draws a sign of its own each time")
        ] = "example",
    ) -> None:
        if not beta > 0.0:
            raise ValueError(f"estimator.beta={beta}: must be a number > 0")
        super().__init__([(-beta, -1.0 / beta), (beta, 1.0 / beta)])  # either, with the free one
        self.beta = beta
        self.per = per

    def drawn(self, state: State) -> Sequence[tuple[Strength, Strength]]:
        u, shape = state.u[-1], (state.batch_size,) if self.per == "example" else ()
        sign = torch.randint(2, shape, generator=state.generator, dtype=u.dtype, device=u.device)
        sign = sign.mul_(2.0).sub_(1.0)
        return [(0.0, -sign / self.beta), (sign * self.beta, sign / self.beta)]

    def remedies(self) -> dict[str, float]:
        return {"estimator.beta": self.beta}


def _is_free(beta: Strength) -> bool:
    return not isinstance(beta, Tensor) and beta == 0.0


def _measured_phases(
    metrics: dict[str, float], free: Relaxation, last: Relaxation
) -> dict[str, float]:
    """What both phases' energies and relaxations say."""
    difference = {"energy/difference": metrics["energy/nudged"] - metrics["energy/free"]}
    return difference | measured_relaxation("free", free) | measured_relaxation("nudged", last)
