"""Equilibrium propagation where feedback has weights of its own, so that there is no energy."""

from __future__ import annotations

import logging
from typing import Annotated, ClassVar

import torch
from annotated_types import Predicate
from torch import Tensor
from typing_extensions import Doc

from eqprop.estimator.equilibrium_propagation import other_than_zero
from eqprop.estimator.estimator import (
    Estimate,
    Estimator,
    Update,
    measured_energy,
    measured_layers,
    measured_relaxation,
    nudged,
    refuse_low_nudge,
    target_for,
)
from eqprop.estimator.implicit import held_units
from eqprop.estimator.linearised import Linearised
from eqprop.network import Cost, Edge, Network, Nudge, State
from eqprop.network.local import Quadratic
from eqprop.network.pool import Max
from eqprop.relaxation import Solver

log = logging.getLogger(__name__)


class AsymmetricEquilibriumPropagation(Estimator):
    """``∇θ = −(1/β) ⟨(u^β − u⁰) · ∂V/∂θ(u⁰)⟩`` for layers that follow any vector field V.

    The nudged phase follows ``V(u) − (J − Jᵀ)(u − u⁰) − β ∂C/∂u``, J the Jacobian of V at the free
    equilibrium u⁰. To first order that is Jᵀ (u − u⁰) − β ∂C/∂u, so that u^β − u⁰ goes to β times
    the solution λ of Jᵀλ = ∂C/∂u, which makes −⟨λ · ∂V/∂θ⟩ the gradient of the cost: with a bias of
    order β. J is never formed: the solver relaxes a network whose layers are pushed by products
    with it, so that each move of a layer costs two backward passes more.

    Where the feedback weights are the same, J is symmetric and u^β is that of one-sided
    equilibrium propagation; the gradients differ by order β, since that takes the difference of
    ∂E/∂θ at the two states where this one takes its derivative at the first.
    Source: Scurria, Vanden Abeele, Mognetti & Massar (2026), "Equilibrium propagation for
    non-conservative systems"; uncorrected, Scellier, Goyal, Binas, Mesnard & Bengio (2018).

    Args:
        beta: nudging strength; a negative one pushes away from the target.
        corrected: whether the nudged phase is corrected; without, it is the vector field's own.
    """

    follows_cost: ClassVar = True

    def __init__(
        self,
        beta: Annotated[
            float, Predicate(other_than_zero), Doc("strength of the nudge towards the target")
        ] = 1.0,
        corrected: Annotated[
            bool, Doc("correct the nudged phase (false: vector-field EP, which is biased)")
        ] = True,
    ) -> None:
        if beta == 0.0:
            raise ValueError("estimator.beta=0: must be a number other than 0")
        self.beta = beta
        self.corrected = corrected

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
        target, metrics = target_for(state, target), dict[str, float]()
        with torch.no_grad(), state.held():
            free = solver.free_phase(network, state, measure)
            if measure:
                metrics |= measured_energy(network, state, "free", cost, target)
            output = state.u[-1].clone()
            at = Linearised(network, state, held_units(network, state, solver))
            followed = Corrected(network, at) if self.corrected and network.asymmetric else network
            nudge = nudged(cost, target, self.beta)
            last = solver.relax(followed, state, nudge, solver.n_nudged, measure)
            if measure:
                metrics |= measured_energy(network, state, "nudged", cost, target)
                difference = metrics["energy/nudged"] - metrics["energy/free"]
                metrics |= {"energy/difference": difference}
                metrics |= measured_relaxation("free", free) | measured_relaxation("nudged", last)
                metrics |= measured_layers(network, state)
            gradients = at.parameter_gradient(displacement(state, at) / self.beta)
        return Estimate(gradients, output, {"free": free, "nudged": last}, metrics)

    def check(self, network: Network) -> None:
        if not network.asymmetric:
            log.info(
                "estimator=asymmetric: signals come back by the same weights, so that there is "
                "nothing to correct; it is meant for model.feedback=fixed or learned"
            )
        elif not network.feedforward and any(_has_max_pool(edge) for edge in network.edges):
            log.warning(
                "model.feedback: with pool: max the layers may never come to rest, since what they "
                "follow jumps where another pixel becomes the largest; average and soft pools, and "
                "energies with a feed-forward pass, are safe"
            )

    def check_with(self, solver: Solver, cost: Cost) -> None:
        refuse_low_nudge(self, self.beta, solver, cost)

    def remedies(self) -> dict[str, float]:
        return {"estimator.beta": self.beta}


def displacement(state: State, at: Linearised) -> Tensor:
    """How far the free layers have moved from where ``at`` was taken, as a flat vector."""
    now = [state.u[layer] for layer in state.free]
    return at.flat([u - start for u, start in zip(now, at.layers, strict=True)])


def _has_max_pool(edge: Edge) -> bool:
    return isinstance(getattr(edge, "pool", None), Max) and edge.feedback is not None


class Corrected(Network):
    """The same layers and edges, near an equilibrium of which the Jacobian acts transposed."""

    def __init__(self, network: Network, at: Linearised) -> None:
        super().__init__(network.shapes, network.phi, network.edges, network.local)
        self.at = at

    def nudge_at(self, state: State, layer: int, nudge: Nudge | None) -> Nudge | None:
        """What nudges ``layer``, and (J − Jᵀ)(u − u⁰) as a slope beside it."""
        moved = displacement(state, self.at)
        slope = -self.at.antisymmetric_product(moved, state.free.index(layer))  # it is added to −V
        own = super().nudge_at(state, layer, nudge)
        if own is None:
            return Nudge(Tilted(slope), slope, slope.new_ones(()))
        return Nudge(Tilted(slope / own.beta, own.cost), own.target, own.beta)


class Tilted(Cost):
    """``slope · u``, on top of another cost or of none."""

    def __init__(self, slope: Tensor, of: Cost | None = None) -> None:
        self.slope, self.of = slope, of

    def cost(self, u_last: Tensor, target: Tensor) -> Tensor:
        tilt = (self.slope * u_last).flatten(1).sum(1)
        return tilt if self.of is None else tilt + self.of.cost(u_last, target)

    def gradient(self, u_last: Tensor, target: Tensor, out: Tensor) -> Tensor:
        if self.of is None:
            return out.copy_(self.slope)
        return self.of.gradient(u_last, target, out).add_(self.slope)

    def curvature(self, u_last: Tensor, target: Tensor, out: Tensor) -> Tensor:
        return out.zero_() if self.of is None else self.of.curvature(u_last, target, out)

    def quadratic(self, target: Tensor) -> Quadratic | None:
        found = Quadratic() if self.of is None else self.of.quadratic(target)
        return found and Quadratic(found.w, found.v - self.slope)
