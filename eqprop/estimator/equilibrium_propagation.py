"""The contrasts that are published as equilibrium propagation: other nudges, other coefficients."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Predicate
from typing_extensions import Doc

from eqprop.estimator.contrast import Contrast, Strength
from eqprop.network import Network, State
from eqprop.network.pool import Max

log = logging.getLogger(__name__)


def other_than_zero(beta: float) -> bool:
    """Whether a nudge of this strength moves the output at all."""
    return beta != 0


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
