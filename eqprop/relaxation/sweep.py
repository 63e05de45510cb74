"""Sweeps: groups of layers in turn, each layer moved by a rule, given the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Gt
from torch import Tensor
from typing_extensions import Doc

from eqprop.network import ACTIVATIONS, Cost, Hopfield, LocalEnergy, Network, Nudge, State
from eqprop.network.local import Quadratic, Site
from eqprop.relaxation.compiled import Move
from eqprop.relaxation.functional import swept
from eqprop.relaxation.solver import Init, NudgedSteps, Solver, Steps

Rule = Annotated[
    Literal["newton", "exact", "projected"],
    Doc(
        "how a layer moves: newton (gradient over curvature), exact (to its minimum), projected "
        "(to where its own gradient vanishes, the signals it receives held)"
    ),
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
    a layer at the minimum of F given the others, where the energy has a closed form for that. The
    rule ``projected`` puts it where its gradient vanishes with the signals that it receives held:
    φ(drive + feedback), which makes K = L even_odd sweeps of predictive coding backpropagation.
    Layers that the nudge has not reached since a feed-forward pass are left alone.

    Args:
        rule: how a layer moves.
        order: the groups: one layer each, from the output (``backward``) or from the input
            (``forward``), or the colours of the graph (``even_odd``), so that no edge joins two
            layers of one group.
        clip: the furthest that a newton step moves a unit, in units of u.
        dt: the share of each move that is taken, in units of tau; 1 takes it whole.
        n_relax, n_nudged, keys: see :class:`Solver`; steps are sweeps.
    """

    default_init: Init = "zeros"
    capturable: ClassVar = True

    def __init__(
        self,
        rule: Rule = "newton",
        order: Order = "backward",
        n_relax: Steps = 6,
        n_nudged: NudgedSteps = 4,
        clip: Clip = 1.0,
        **keys: Any,
    ) -> None:
        super().__init__(n_relax, n_nudged, **keys)
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
        for layer in range(1, network.n_layers) if self.rule != "newton" else ():
            one, last = torch.zeros(1, 1), layer == network.n_layers - 1
            site = Site(network.phi[layer], one, one, one, one, one)
            if self.rule == "projected":
                network.local.project(site, None, one.clone())
            else:
                nudge = Quadratic(1.0, one) if last else Quadratic()
                network.local.minimise(site, nudge, one.clone())

    @classmethod
    def check_config(cls, config: Any) -> None:
        """Refuse what the rule ``exact`` has no closed form for.

        Raises:
            ValueError: one line, with the key.
        """
        rule = "exact" if issubclass(cls, Exact) else getattr(config.dynamics, "rule", None)
        beta = getattr(config.estimator, "beta", 1.0)
        centered = getattr(config.estimator.constructor, "both_signs", False)
        quadratic = getattr(config.cost.constructor, "quadratic", Cost.quadratic)
        is_quadratic = quadratic is not Cost.quadratic
        if rule in ("exact", "projected") and is_quadratic and (-beta if centered else beta) <= -1:
            raise ValueError(f"estimator.beta={beta}: dynamics.rule={rule} needs nudges > -1")
        if rule != "exact":
            return
        local = getattr(config.model.constructor, "terms_of", config.model.constructor)
        if getattr(local, "minimise", LocalEnergy.minimise) is LocalEnergy.minimise:
            raise ValueError(
                f"dynamics=exact: {local.__name__} has no closed form for the minimum of a layer; "
                "choose newton or euler"
            )
        for activation in config.model.activations() if local is Hopfield else ():
            if not ACTIVATIONS[activation].pieces:
                allowed = ", ".join(name for name, phi in ACTIVATIONS.items() if phi.pieces)
                raise ValueError(
                    f"model.activation={activation!r}: dynamics=exact needs one of {allowed}"
                )
        if not is_quadratic:
            raise ValueError("dynamics=exact: needs cost=mse, whose minimum is a closed form")

    def seeks_equilibrium(self, network: Network) -> bool:
        """Not where the sweeps stand for a backward pass: as many as there are layers do."""
        return not (self.rule == "projected" and network.feedforward)

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
        layers = [layer for group in groups(network, self.order) for layer in group if layer]
        return swept(network, u, nudge, layers, self.rule, self.dt / self.tau, self.clip)

    def _layers(self, network: Network, state: State) -> list[int]:
        """The free layers in turn, those of a group one after the other."""
        layers = [layer for group in groups(network, self.order) for layer in group]
        return [layer for layer in layers if not state.clamped[layer]]

    def _sweep(
        self, network: Network, state: State, nudge: Nudge | None, layers: list[int]
    ) -> None:
        rests = state.at_rest if type(self).move_layer is Sweep.move_layer else ()
        for layer in layers:
            if layer in rests and (nudge is None or layer < network.n_layers - 1):
                continue  # the nudge has not reached it
            self.move_layer(network, state, nudge, layer)
            state.moved(layer)

    def move_layer(self, network: Network, state: State, nudge: Nudge | None, layer: int) -> None:
        """Move one layer by the rule."""
        own = nudge if layer == network.n_layers - 1 else None
        u, share = state.u[layer], self.dt / self.tau
        if self.rule != "newton":
            out = u if share == 1.0 else state.gradient[layer]
            target = self._target(network, state, layer, own, out)
            if target is not u:
                u.lerp_(target, share)
            return
        site = network.site(state, layer)
        move = _newton_step(network, state, layer, site, own).clamp_(-self.clip, self.clip)
        old = state.work[layer].copy_(u) if network.rate_phi[layer].pieces else u
        u.sub_(move, alpha=share)
        if old is not u:
            network.rate_phi[layer].within_piece_(u, old)
        low, high = network.domains[layer]
        if math.isfinite(low) or math.isfinite(high):
            u.clamp_(low, high)

    def _target(
        self, network: Network, state: State, layer: int, nudge: Nudge | None, out: Tensor
    ) -> Tensor:
        """Where the rules exact and projected put a layer, in ``out``."""
        site, terms = network.site(state, layer), network.terms[layer]
        if self.rule == "exact":
            return terms.minimise(site, Quadratic() if nudge is None else nudge.quadratic(), out)
        pull: Tensor | Quadratic | None = None
        if nudge is not None:
            pull = nudge.if_quadratic() or nudge.gradient(site.u, state.pulled[layer])
        return terms.project(site, pull, out)


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
