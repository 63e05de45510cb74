"""Sweeps: groups of layers in turn, each layer moved by a rule, given the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Gt
from torch import Tensor
from typing_extensions import Doc

from eqprop.network import ACTIVATIONS, Cost, Hopfield, LocalEnergy, Network, Nudge, State
from eqprop.network.local import Quadratic, Site
from eqprop.relaxation.compiled import Move
from eqprop.relaxation.solver import (
    Init,
    NudgedSteps,
    Solver,
    Steps,
    StepSize,
    TimeConstant,
    Tolerance,
)

Rule = Annotated[
    Literal["newton", "exact"],
    Doc("how a layer moves: newton (gradient over curvature), exact (to its minimum)"),
]
Order = Annotated[
    Literal["backward", "forward", "even_odd"],
    Doc("which layers move in turn; even_odd: all that do not touch, the output's group first"),
]
Clip = Annotated[float, Gt(0), Doc("the furthest that a newton step moves a unit")]


class Sweep(Solver):
    """One step moves every free layer once, group by group.

    The rule ``newton`` takes ``u ← u − clip(∂F/∂u / max(|∂²F/∂u²|, c), ±clip)``: trained networks
    are stiff, a unit's own curvature grows with its drive, and explicit steps then oscillate.
    Dividing by the curvature, by its absolute value where it is negative and never by less than
    the curvature c that the unit has by itself, keeps every step downhill. The rule ``exact`` puts
    a layer at the minimum of F given the others, where the energy has a closed form for that.

    Args:
        rule: how a layer moves.
        order: the groups: one layer each, from the output (``backward``) or from the input
            (``forward``), or the colours of the graph (``even_odd``), so that no edge joins two
            layers of one group.
        clip: the furthest that a newton step moves a unit, in units of u.
        dt: the share of each move that is taken, in units of tau; 1 takes it whole.
        n_relax, n_nudged, tol, init, tau: see :class:`Solver`; steps are sweeps.
    """

    default_init: Init = "zeros"
    capturable: ClassVar = True

    def __init__(
        self,
        rule: Rule = "newton",
        order: Order = "backward",
        n_relax: Steps = 6,
        n_nudged: NudgedSteps = 4,
        tol: Tolerance = 0.0,
        init: Init = "auto",
        clip: Clip = 1.0,
        dt: StepSize = 1.0,
        tau: TimeConstant = 1.0,
    ) -> None:
        super().__init__(n_relax, n_nudged, tol, init, dt, tau)
        self.rule = rule
        self.order = order
        self.clip = clip

    def check(self, network: Network) -> None:
        super().check(network)
        if not network.layerwise:
            raise ValueError(
                f"dynamics={self.rule}: {type(network).__name__} gives its energy as a whole, "
                "without local terms; choose dynamics=euler or dynamics=anderson"
            )
        for layer in range(1, network.n_layers) if self.rule == "exact" else ():
            one = torch.zeros(1, 1)
            site = Site(network.phi[layer], one, one, one, one)
            network.local.minimise(site, Quadratic(), torch.zeros(1, 1))

    @classmethod
    def check_config(cls, config: Any) -> None:
        """Refuse what the rule ``exact`` has no closed form for.

        Raises:
            ValueError: one line, with the key.
        """
        if not issubclass(cls, Exact) and getattr(config.dynamics, "rule", None) != "exact":
            return
        local = getattr(config.model.constructor, "terms_of", config.model.constructor)
        activation, cost = config.model.activation, config.cost.constructor
        if getattr(local, "minimise", LocalEnergy.minimise) is LocalEnergy.minimise:
            raise ValueError(
                f"dynamics=exact: {local.__name__} has no closed form for the minimum of a layer; "
                "choose newton or euler"
            )
        if local is Hopfield and not ACTIVATIONS[activation].pieces:
            allowed = ", ".join(name for name, phi in ACTIVATIONS.items() if phi.pieces)
            raise ValueError(
                f"model.activation={activation!r}: dynamics=exact needs one of {allowed}"
            )
        if getattr(cost, "quadratic", Cost.quadratic) is Cost.quadratic:
            raise ValueError("dynamics=exact: needs cost=mse, whose minimum is a closed form")
        beta = getattr(config.estimator, "beta", 1.0)
        centered = getattr(config.estimator.constructor, "both_signs", False)
        if (-beta if centered else beta) <= -1:
            raise ValueError(f"estimator.beta={beta}: dynamics=exact needs nudges > -1")

    def move(self) -> Move | None:
        """What a compiled loop has to do in a step, where there is one for it."""
        if self.rule != "newton" or self.order != "backward":
            return None
        return Move(newton=True, step=self.dt / self.tau, clip=self.clip)

    def steps(self, network: Network, state: State, nudge: Nudge | None, n_steps: int) -> None:
        layers = self._layers(network, state)
        for _ in range(n_steps):  # a sweep itself says which layers have moved
            self._sweep(network, state, nudge, layers)

    def step(self, network: Network, state: State, nudge: Nudge | None) -> None:
        self._sweep(network, state, nudge, self._layers(network, state))

    def next(self, network: Network, u: Sequence[Tensor], nudge: Nudge | None) -> list[Tensor]:
        """As the base class says; the curvature that a newton step divides by counts as constant.

        At the equilibrium, where the gradient is zero, that leaves the derivative exact.
        """
        state = network.new_state(len(u[0]))
        state.clamp(0, u[0].detach())
        state.u[:] = [layer.detach() for layer in u]
        found = list(u)
        for layer in self._layers(network, state):
            with torch.no_grad():
                self.move_layer(network, state, nudge, layer)
            found[layer] = self._through(network, state, nudge, layer, found)
        return found

    def _through(
        self,
        network: Network,
        state: State,
        nudge: Nudge | None,
        layer: int,
        u: list[Tensor],
    ) -> Tensor:
        """What ``layer`` has moved to, with the derivative of that move by ``u``."""
        exact, share = self.rule == "exact", self.dt / self.tau
        moved = state.u[layer].clone()
        with torch.enable_grad():
            # of its own name: the other layers may depend on where it was
            here = moved.clone().requires_grad_() if exact else u[layer] + torch.zeros_like(moved)
            here = here if here.requires_grad else here.requires_grad_()
            at = [here if i == layer else other for i, other in enumerate(u)]
            total = network.energy(at)
            total = total if nudge is None else total + nudge.energy(at[-1])
            (gradient,) = torch.autograd.grad(total.sum(), here, create_graph=True)
        with torch.no_grad():
            state.u[layer] = here.detach()
            own = nudge if layer == network.n_layers - 1 else None
            curvature = network.newton_terms(state, layer, network.site(state, layer), own)[1]
            least = network.terms[layer].own_curvature
            divisor = curvature.abs().clamp_min(least).mul_(network.local.scale)
            state.u[layer] = moved
        move = gradient / divisor
        if exact:  # it is at the minimum, and moves with it
            graph = u[layer] * (1.0 - share) - share * move
        else:
            graph = u[layer] - share * move.clamp(-self.clip, self.clip)
        return moved + graph - graph.detach()

    def _layers(self, network: Network, state: State) -> list[int]:
        """The free layers in turn: within a group the turn does not matter."""
        layers = [layer for group in groups(network, self.order) for layer in group]
        return [layer for layer in layers if not state.clamped[layer]]

    def _sweep(
        self, network: Network, state: State, nudge: Nudge | None, layers: list[int]
    ) -> None:
        for layer in layers:
            self.move_layer(network, state, nudge, layer)
            network.moved(state, layer)

    def move_layer(self, network: Network, state: State, nudge: Nudge | None, layer: int) -> None:
        """Move one layer by the rule."""
        own = nudge if layer == network.n_layers - 1 else None
        site, share = network.site(state, layer), self.dt / self.tau
        if self.rule == "exact":
            quadratic = Quadratic() if own is None else own.quadratic()
            target = network.terms[layer].minimise(site, quadratic, state.gradient[layer])
            site.u.lerp_(target, share)
            return
        move = _newton_step(network, state, layer, site, own).clamp_(-self.clip, self.clip)
        if not site.phi.pieces:
            site.u.sub_(move, alpha=share)
            return
        old = state.work[layer].copy_(site.u)
        site.u.sub_(move, alpha=share)
        site.phi.within_piece_(site.u, old)


class Newton(Sweep):
    """Sweeps by the rule ``newton``, the output layer first; keys as :class:`Sweep`'s."""

    capturable: ClassVar = True

    def __init__(self, n_relax: Steps = 6, n_nudged: NudgedSteps = 4, **keys: Any) -> None:
        super().__init__("newton", "backward", n_relax, n_nudged, **keys)


class Exact(Sweep):
    """Sweeps by the rule ``exact``, the output layer first: the energy can never rise."""

    capturable: ClassVar = True

    def __init__(self, n_relax: Steps = 10, n_nudged: NudgedSteps = None, **keys: Any) -> None:
        super().__init__("exact", "backward", n_relax, n_nudged, **keys)


def groups(network: Network, order: Order) -> list[list[int]]:
    """The layers above the input, and the input, in the order in which a sweep moves them."""
    layers = list(range(network.n_layers - 1, -1, -1))
    if order != "even_odd":
        return [[layer] for layer in (layers if order == "backward" else layers[::-1])]
    colours: dict[int, int] = {}
    for layer in layers:
        beside = [e.target for e in network.out_of[layer]] + [e.source for e in network.into[layer]]
        taken = {colours[other] for other in beside if other in colours}
        colours[layer] = next(c for c in range(len(layers)) if c not in taken)
    found = [[layer for layer in layers if colours[layer] == c] for c in range(len(layers))]
    return [group for group in found if group]


def _newton_step(
    network: Network, state: State, layer: int, site: Site, nudge: Nudge | None
) -> Tensor:
    """∂F/∂u / max(|∂²F/∂u²|, c) of one layer, in a buffer."""
    grad, curvature = network.newton_terms(state, layer, site, nudge)
    curvature.abs_().clamp_min_(network.terms[layer].own_curvature)
    return torch.div(grad, curvature, out=grad)
