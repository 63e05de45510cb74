"""Contrasts of states whose output is clamped instead of nudged."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from annotated_types import Gt
from torch import Tensor
from typing_extensions import Doc

from eqprop.estimator.contrast import Contrast
from eqprop.network import Cost, Network, Nudge, State
from eqprop.relaxation import Relaxation, Solver

Variant = Annotated[
    Literal["positive", "negative", "centered"],
    Doc("where the output is clamped: nearer to the target, further from it, or both in turn"),
]


class ClampedContrast(Contrast):
    """A contrast in whose nudged phases the output is held, while all other layers relax.

    No gradient of the cost. With the clamped outputs o_k held it is, at the equilibria, the
    gradient of ``Σ_k c_k E(u_k)``: an energy that is stationary in the free layers changes with
    the weights by ∂E/∂θ alone.

    Where the energy of an output unit is finite in an interval only (`Network.domains`: the range
    of φ for the energy RateHopfield), the output is clamped at the nearest value in it.
    """

    @abstractmethod
    def clamped_output(self, output: Tensor, nudge: Nudge) -> Tensor:
        """Where the output is held: a new tensor; ``output`` is that of the free equilibrium."""

    def nudged_phase(
        self, network: Network, state: State, solver: Solver, nudge: Nudge, measure: bool
    ) -> Relaxation:
        last = network.n_layers - 1
        if state.clamped[last]:
            raise ValueError(
                f"the output is clamped, and {type(self).__name__} has to move it: release it, or "
                "choose EquilibriumPropagation"
            )
        state.clamp(last, self.clamped_output(state.u[last], nudge).clamp_(*network.domains[last]))
        try:
            return solver.relax(network, state, None, solver.n_nudged, measure)
        finally:
            state.release(last)

    def check_with(self, solver: Solver, cost: Cost) -> None:
        return  # no solver is given a nudge

    def nudges(self, cost: Cost, target: Tensor) -> Iterator[tuple[str, Nudge]]:
        return iter(())  # no nudge leads to where these phases end

    def capture_obstacle(self) -> str | None:
        own = type(self).estimate, type(self).nudged_phase
        if own == (Contrast.estimate, ClampedContrast.nudged_phase):
            return None
        return f"{type(self).__name__} does not say that it can be captured"


class CoupledLearning(ClampedContrast):
    """Coupled learning: the output o⁰ of the free equilibrium is clamped nearer to the target.

    ``∇θ = (1/β) [∂E/∂θ(u⁺) − ∂E/∂θ(u⁰)]`` with the output at ``o⁰ − β ∂C/∂o`` in u⁺ (positive),
    ``(1/β) [∂E/∂θ(u⁰) − ∂E/∂θ(u⁻)]`` with ``o⁰ + β ∂C/∂o`` in u⁻ (negative), or
    ``(1/2β) [∂E/∂θ(u⁺) − ∂E/∂θ(u⁻)]`` (centered). With a squared error, β is the share of the way
    to the target. As β → 0 all three are the gradient of the cost with S ∂C/∂o in the place of
    ∂C/∂o, where S is the curvature of E in the output, the other layers following.

    Source: Stern, Hexner, Rocks & Liu (2021), "Supervised learning in physical networks"; the
    variants as Scellier, Ernoult, Kendall & Kumar (2023) name them.

    Args:
        beta: how far the output is moved, positive.
        variant: positive, negative or centered.
    """

    def __init__(
        self,
        beta: Annotated[
            float, Gt(0), Doc("how far the output is moved (cost=mse: share of the way)")
        ] = 0.5,
        variant: Variant = "positive",
    ) -> None:
        if not beta > 0.0:
            raise ValueError(f"estimator.beta={beta}: must be a number > 0")
        phases = {
            "positive": [(0.0, -1.0 / beta), (beta, 1.0 / beta)],
            "negative": [(0.0, 1.0 / beta), (-beta, -1.0 / beta)],
            "centered": [(-beta, -0.5 / beta), (beta, 0.5 / beta)],
        }
        if variant not in phases:
            raise ValueError(f"estimator.variant={variant}: must be one of {', '.join(phases)}")
        super().__init__(phases[variant])
        self.beta = beta
        self.variant = variant

    def clamped_output(self, output: Tensor, nudge: Nudge) -> Tensor:
        return output - nudge.gradient(output, output.new_empty(output.shape))

    def remedies(self) -> dict[str, float]:
        return {"estimator.beta": self.beta}


class ContrastiveHebbianLearning(ClampedContrast):
    """Contrastive learning: ``∂E/∂θ(u^y) − ∂E/∂θ(u⁰)``, the output clamped at the target in u^y.

    Whatever the cost is: that only measures. With an energy whose free phase is a feed-forward
    pass the second term is zero, and this is predictive coding as it is usually trained.

    Source: Movellan (1991), "Contrastive Hebbian learning in the continuous Hopfield model".
    """

    follows_cost: ClassVar = False

    def __init__(self) -> None:
        super().__init__([(0.0, -1.0), (1.0, 1.0)])

    def clamped_output(self, output: Tensor, nudge: Nudge) -> Tensor:
        return nudge.target.clone()
