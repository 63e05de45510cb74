"""Sweeps: groups of layers in turn, each layer moved by a rule, given the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from eqprop.network import ACTIVATIONS, Cost, Hopfield, LocalEnergy, Network, Nudge, State
from eqprop.network.local import Quadratic, Site, nudged_at
from eqprop.relaxation.compiled import Move
from eqprop.relaxation.euler import sites_of
from eqprop.relaxation.functional import swept
from eqprop.relaxation.newton import newton_move
from eqprop.relaxation.order import Clip, Order, Place, Rule, groups
from eqprop.relaxation.settings import NudgedSteps, Steps
from eqprop.relaxation.solver import Solver


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
            (``forward``), or the colours of the graph (``even_odd`` from the output, ``odd_even``
            from the first layer), so that no edge joins two layers of one group; or all at once
            (``synchronous``). An output that is only read out moves last, and before a phase.
        clip: the furthest that a newton step moves a unit, in units of u.
        nudge: of the rule projected: φ(drive + feedback − β ∂C/∂u) is ``inside``,
            φ(drive + feedback) − β ∂C/∂u is ``outside`` (Ernoult et al. 2019). They differ where
            the output is saturated.
        dt: the share of each move that is taken, in units of tau; 1 takes it whole.
        n_relax, n_nudged, keys: see :class:`Solver`; steps are sweeps.
    """

    capturable: ClassVar = True
    moves_complex: ClassVar = True

    def __init__(
        self,
        rule: Rule = "newton",
        order: Order = "backward",
        n_relax: Steps = 6,
        n_nudged: NudgedSteps = 4,
        clip: Clip = 1.0,
        nudge: Place = "inside",
        **keys: Any,
    ) -> None:
        super().__init__(n_relax, n_nudged, **keys)
        if order == "synchronous" and rule == "newton":
            raise ValueError(
                "dynamics.order=synchronous: newton moves one layer after the other; choose "
                "dynamics.rule=projected"
            )
        if nudge == "outside" and rule != "projected":
            raise ValueError(f"dynamics.nudge=outside: needs dynamics.rule=projected, not {rule}")
        self.rule = rule
        self.order = order
        self.clip = clip
        self.nudge = nudge

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
                network.terms[layer].project(site, None, one.clone())
            else:
                nudge = Quadratic(1.0, one) if last else Quadratic()
                network.terms[layer].minimise(site, nudge, one.clone())

    @classmethod
    def check_config(cls, config: Any) -> None:
        """Refuse what the rule ``exact`` has no closed form for.

        Raises:
            ValueError: one line, with the key.
        """
        rule = "exact" if issubclass(cls, Exact) else getattr(config.dynamics, "rule", None)
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
        if getattr(config.cost.constructor, "quadratic", Cost.quadratic) is Cost.quadratic:
            raise ValueError(
                "dynamics=exact: needs cost=mse: only then has the minimum of a layer a closed form"
            )

    def least_nudge(self, cost: Cost) -> float:
        """−1 / w where the rule puts the output at (… + β v) / (1 + β w)."""
        if self.rule == "newton" or (found := cost.quadratic(torch.zeros(1, 1))) is None:
            return -math.inf
        w = float(torch.as_tensor(found.w).max())
        return -1.0 / w if w > 0.0 else -math.inf

    def seeks_equilibrium(self, network: Network) -> bool:
        """Not where the sweeps stand for a backward pass: as many as there are layers do."""
        return not (self.rule == "projected" and network.feedforward)

    def move(self) -> Move | None:
        """What a compiled loop has to do in a step, where there is one for it."""
        if self.rule != "newton" or self.order != "backward":
            return None
        return Move(newton=True, step=self.dt / self.tau, clip=self.clip)

    def begin(self, network: Network, state: State, nudge: Nudge | None) -> None:
        last = network.n_layers - 1
        if network.terms[last].reads_out and not state.clamped[last]:
            self.move_layer(network, state, nudge, last)
            state.moved(last)

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
        how = self.rule, self.dt / self.tau, self.clip, self.nudge
        found = list(u)
        for group in groups(network, self.order):
            layers = [layer for layer in group if layer]
            if self.order == "synchronous":
                moved = [swept(network, found, nudge, [layer], *how)[layer] for layer in layers]
                for layer, new in zip(layers, moved, strict=True):
                    found[layer] = new
            else:
                found = swept(network, found, nudge, layers, *how)
        return found

    def _layers(self, network: Network, state: State) -> list[int]:
        """The free layers in turn, those of a group one after the other."""
        layers = [layer for group in groups(network, self.order) for layer in group]
        return [layer for layer in layers if not state.clamped[layer]]

    def _sweep(
        self, network: Network, state: State, nudge: Nudge | None, layers: list[int]
    ) -> None:
        rests = state.at_rest if type(self).move_layer is Sweep.move_layer else ()
        if self.order == "synchronous":
            layers = self._move_together(network, state, nudge, layers)
        for layer in layers:
            if layer in rests and network.nudge_at(state, layer, nudge) is None:
                continue  # the nudge has not reached it
            self.move_layer(network, state, nudge, layer)
            state.moved(layer)

    def _move_together(
        self, network: Network, state: State, nudge: Nudge | None, layers: list[int]
    ) -> list[int]:
        """Move all that are states, given the others as they were; returns what reads them."""
        together = [layer for layer in layers if not network.terms[layer].reads_out]
        sites = sites_of(network, state, together)
        nudges = [network.nudge_at(state, layer, nudge) for layer in together]
        for layer, site, own in zip(together, sites, nudges, strict=True):
            self._put(network, state, own, layer, site)
        for layer in together:
            state.moved(layer)
        return [layer for layer in layers if layer not in together]

    def move_layer(self, network: Network, state: State, nudge: Nudge | None, layer: int) -> None:
        """Move one layer by the rule."""
        site, own = network.site(state, layer), network.nudge_at(state, layer, nudge)
        if self.rule != "newton":
            self._put(network, state, own, layer, site)
            return
        u, share = state.u[layer], self.dt / self.tau
        move = newton_move(network, state, layer, site, own, self.clip)
        old = state.work[layer].copy_(u) if network.rate_phi[layer].pieces else u
        u.sub_(move, alpha=share)
        if old is not u:
            network.rate_phi[layer].within_piece_(u, old)
        low, high = network.domains[layer]
        if math.isfinite(low) or math.isfinite(high):
            u.clamp_(low, high)

    def _put(
        self, network: Network, state: State, nudge: Nudge | None, layer: int, site: Site
    ) -> None:
        """Move one layer by the rule exact or projected; ``nudge`` is what nudges this one."""
        u, share = state.u[layer], self.dt / self.tau
        out = u if share == 1.0 else state.gradient[layer]
        target = self._target(network, state, layer, site, nudge, out)
        if target is not u:
            u.lerp_(target, share)

    def _target(
        self,
        network: Network,
        state: State,
        layer: int,
        site: Site,
        nudge: Nudge | None,
        out: Tensor,
    ) -> Tensor:
        """Where the rules exact and projected put a layer, in ``out``."""
        terms = network.terms[layer]
        if self.rule == "exact":
            return terms.minimise(site, Quadratic() if nudge is None else nudge.quadratic(), out)
        if nudge is None:
            return terms.project(site, None, out)
        if self.nudge == "inside" and (quadratic := nudge.if_quadratic()) is not None:
            return terms.project(site, quadratic, out)
        pull = nudge.gradient(nudged_at(terms, site), state.pulled[layer])
        if self.nudge == "inside":
            return terms.project(site, pull, out)
        return torch.sub(terms.project(site, None, out), pull, alpha=1.0 / terms.scale, out=out)


class Newton(Sweep):
    """Sweeps by the rule ``newton``, the output layer first; keys as :class:`Sweep`'s."""

    capturable: ClassVar = True
    moves_complex: ClassVar = True

    def __init__(self, n_relax: Steps = 6, n_nudged: NudgedSteps = 4, **keys: Any) -> None:
        super().__init__("newton", "backward", n_relax, n_nudged, **keys)


class Exact(Sweep):
    """Sweeps by the rule ``exact``, the output layer first: the energy cannot rise.

    It can with an edge from a layer to itself, or a soft pool above: there, what a layer receives
    depends on its own state, which counts as held.
    """

    capturable: ClassVar = True
    moves_complex: ClassVar = True

    def __init__(self, n_relax: Steps = 10, n_nudged: NudgedSteps = None, **keys: Any) -> None:
        super().__init__("exact", "backward", n_relax, n_nudged, **keys)
