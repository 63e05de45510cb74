"""The control: implicit differentiation at the free equilibrium, by conjugate gradients."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from typing_extensions import Doc

from eqprop.estimator.estimator import (
    Estimate,
    Estimator,
    Update,
    measured_energy,
    measured_layers,
    measured_relaxation,
    target_for,
)
from eqprop.estimator.linearised import Linearised
from eqprop.network import Cost, Network, State
from eqprop.relaxation import Solver

log = logging.getLogger(__name__)


class ImplicitDifferentiation(Estimator):
    """``d⟨C(u*)⟩/dθ = ⟨λ · ∂²E/∂u∂θ⟩ with (∂²E/∂u²) λ = −∂C/∂u`` at the free equilibrium u*.

    The equilibrium is the one that the solver finds; the energy is differentiated twice, by
    autograd. Units that are held there, at a kink of φ or at the end of what they may take, follow
    no change of a parameter: their λ is 0. The equations are solved by conjugate gradients, each
    sample on its own; at a saddle of the energy these meet a direction of negative curvature, and
    that sample's λ stays what it was before: the log says so, once. With feedback weights of their
    own, the layers follow a field V that is no energy's: then f = −V takes the place of ∂E/∂u, and
    (∂f/∂u)ᵀ λ = −∂C/∂u is solved on its normal equations.
    Source: the implicit function theorem; Almeida (1987), Pineda (1987).

    Args:
        tol: where the iteration of a sample stops, in norms of its ∂C/∂u; no less than what its
            precision allows.
        max_iterations: of conjugate gradients, each as dear as two gradients of the energy.
    """

    def __init__(
        self,
        tol: Annotated[
            float, Gt(0), Doc("residual of a sample's equations, relative to their right-hand side")
        ] = 1e-6,
        max_iterations: Annotated[
            int, Ge(1), Doc("iterations of conjugate gradients at most")
        ] = 200,
    ) -> None:
        self.tol = tol
        self.max_iterations = max_iterations
        self._warned = False

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
        target = target_for(state, target)
        metrics: dict[str, float] = {}
        with torch.no_grad(), state.held():
            free = solver.free_phase(network, state, measure)
            at = Linearised(network, state, held_units(network, state, solver))
            pull = at.flat(
                [
                    cost.gradient(state.u[-1], target, torch.empty_like(state.u[-1]))
                    if layer == network.n_layers - 1
                    else torch.zeros_like(state.u[layer])
                    for layer in state.free
                ]
            )
            stiff = at.flat(own_curvatures(network, state)).masked_fill_(at.held, 1.0)
            solve = solve_normal if network.asymmetric else solve_symmetric
            solution = solve(at, pull.neg_(), stiff, self.tol, self.max_iterations)
            self._judge(solution)
            gradients = at.parameter_gradient(solution.x)
            if measure:
                metrics = measured_energy(network, state, "free", cost, target)
                metrics |= measured_relaxation("free", free) | measured_layers(network, state)
                metrics |= solution.metrics()
        return Estimate(gradients, state.u[-1].clone(), {"free": free}, metrics)

    def capture_obstacle(self) -> str | None:
        return "conjugate gradients ask the GPU at every iteration whether they have converged"

    def _judge(self, solution: Solution) -> None:
        bad = int((~solution.converged).sum())
        if bad == 0 or self._warned:
            return
        self._warned = True
        saddles = int(solution.saddle.sum())
        log.warning(
            "the equations of implicit differentiation are not solved for %d of %d samples: %s",
            *(bad, len(solution.converged)),
            f"{saddles} rest where the energy has no minimum; take smaller weights (model.gain) or "
            "more steps (dynamics.n_relax)"
            if saddles
            else f"raise estimator.max_iterations ({self.max_iterations}) or estimator.tol "
            f"({self.tol:g})",
        )


def held_units(network: Network, state: State, solver: Solver) -> list[Tensor]:
    """For each free layer, which units (batch, *shape) cannot move, though the energy slopes there.

    A kink of φ holds them, or an end of their domain, or the solver, which then counts no residual
    there. An end at which the energy becomes infinitely steep holds what is next to it, too.
    """
    plain = [None if g is None else g.clone() for g in network.gradient(state)]
    followed = solver.gradient(network, state, None)
    found = []
    for layer in state.free:
        u, phi, domain = state.u[layer], network.rate_phi[layer], network.domains[layer]
        kinks = [end for low, high, _, _ in phi.pieces for end in (low, high)]
        placed = torch.zeros_like(u, dtype=torch.bool)
        for end in {*kinks, *domain}:
            placed |= u == end
        at_rest = followed[layer] == 0
        held = at_rest & (placed | (plain[layer] != 0))
        if not network.phi[layer].pieces:
            eps, force = torch.finfo(u.dtype).eps, followed[layer]
            assert force is not None
            held |= (u <= domain[0] + eps) & (force >= 0) | (u >= domain[1] - eps) & (force <= 0)
        found.append(held)
    return found


def own_curvatures(network: Network, state: State) -> list[Tensor]:
    """For each free layer, about ∂²E/∂u² of each unit with the others held, and positive.

    It leaves out what comes back over the edges. Of an energy that is given as a whole it is 1.
    """
    found = []
    for layer in state.free:
        bend, terms = torch.ones_like(state.u[layer]), network.terms[layer]
        if network.layerwise:
            site = network.site(state, layer)
            pressure = torch.zeros_like(bend) if site.p is None else site.p
            pulled = network.rate_phi[layer].pullback(
                pressure, site.u, site.r, torch.empty_like(bend)
            )
            bend = terms.curvature(site, pressure, pulled, 0.0, bend).abs_()
            bend = bend.clamp_min_(terms.own_curvature).mul_(terms.scale)
        found.append(bend)
    return found


def solve_symmetric(
    at: Linearised, b: Tensor, diagonal: Tensor, tol: float, max_iterations: int
) -> Solution:
    """λ of (∂f/∂u)ᵀ λ = b for a symmetric ∂f/∂u, the diagonal of which is about ``diagonal``."""
    return conjugate_gradients(at.transposed_product, b, diagonal, tol, max_iterations)


def solve_normal(
    at: Linearised, b: Tensor, diagonal: Tensor, tol: float, max_iterations: int
) -> Solution:
    """λ of (∂f/∂u)ᵀ λ = b for any ∂f/∂u: y of (∂f/∂u)ᵀ (∂f/∂u) y = b gives λ = (∂f/∂u) y.

    The residual is so that of the equations for λ, and no sample is at a saddle.
    Source: Saad (2003), section 8.3.2, after Craig (1955).
    """

    def apply(v: Tensor) -> Tensor:
        return at.transposed_product(at.product(v))

    found = conjugate_gradients(apply, b, diagonal.square(), tol, max_iterations)
    return found._replace(x=at.product(found.x))


class Solution(NamedTuple):
    """What conjugate gradients have found; all but the number of iterations is (batch, …)."""

    x: Tensor
    residual: Tensor
    """‖b − A x‖ / ‖b‖ of each sample."""
    converged: Tensor
    saddle: Tensor
    """Where a direction of no positive curvature was met."""
    iterations: int

    def metrics(self) -> dict[str, float]:
        """The largest residual of a sample, the iterations, and the share of samples at saddles."""
        return {
            "implicit/residual": float(self.residual.max()),
            "implicit/iterations": self.iterations,
            "implicit/saddles": float(self.saddle.float().mean()),
        }


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor],
    b: Tensor,
    diagonal: Tensor,
    tol: float,
    max_iterations: int,
) -> Solution:
    """A x = b (batch, n) for each sample, from zero; ``apply`` gives A v, A symmetric.

    ``diagonal`` (batch, n), positive, is about that of A: the preconditioner. A sample stops where
    ‖b − A x‖ ≤ tol ‖b‖, or at a direction v of curvature v · A v ≤ 0.
    Source: Hestenes & Stiefel (1952); preconditioned as Saad (2003), algorithm 9.1.
    """
    size = torch.linalg.vector_norm(b, dim=1)
    goal = size * max(tol, 4.0 * torch.finfo(b.dtype).eps)
    x, r = torch.zeros_like(b), b.clone()
    best, least = x.clone(), size
    z = r / diagonal
    v, product = z.clone(), (r * z).sum(1)
    active, saddle, iterations = size > 0.0, torch.zeros_like(size, dtype=torch.bool), 0
    while iterations < max_iterations and bool(active.any()):
        iterations += 1
        along = apply(v)
        curvature = (v * along).sum(1)
        saddle |= active & ~(curvature > 0.0)
        active = active & ~saddle
        step = torch.where(active, product / curvature, 0.0).unsqueeze(1)
        x.addcmul_(v, step)
        r.addcmul_(along, step, value=-1.0)
        left = torch.linalg.vector_norm(r, dim=1)
        better = active & (left < least)
        best, least = torch.where(better.unsqueeze(1), x, best), torch.where(better, left, least)
        active = active & (left > goal)
        torch.div(r, diagonal, out=z)
        now = (r * z).sum(1)
        v.mul_(torch.where(active, now / product, 0.0).unsqueeze(1)).add_(z)
        product = torch.where(active, now, product)
    left = torch.linalg.vector_norm(b - apply(best), dim=1)
    residual = torch.where(size > 0.0, left / size, 0.0)
    return Solution(best, residual, least <= goal, saddle, iterations)
