"""A network: layers joined by edges, under an energy. It holds parameters and no state."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from eqprop.network.activation import Activation
from eqprop.network.cost import Nudge
from eqprop.network.edge import Edge, Shape, alias
from eqprop.network.field import Field
from eqprop.network.local import InputTerms, LocalEnergy, Site, nudged_at
from eqprop.network.state import State
from eqprop.network.topology import check_edges, in_order


class Network(nn.Module):
    """The energy E(u) = scale · Σ_l Σ_units ε(u_l, r_l, d_l) of layers joined by edges.

    What needs no gradient is computed in the buffers of a `State`; ``energy`` is differentiable.
    A subclass that overrides ``energy`` trains by it: autograd then takes the place of all closed
    forms.

    Args:
        shapes: one sample's shape of each layer, the input first, the output last.
        phi: one activation a layer.
        edges: in any order; several may end in one layer.
        local: the element-wise terms of the energy.

    Attributes:
        W: the edges.
        into, out_of: for each layer, the edges that end, and that begin, there.
        order: the layers above the input, each after those that drive it.
        cycle: layers that edges go around through, where they do: then there is no such order.
        domains: the interval in which the energy of a unit is finite, for each layer.
        bounded: whether the energy of a unit is finite in an interval only.
        plain: whether no subclass overrides what is computed of the local terms.
        predictor: what ``forward`` asks, an `eqprop.Predictor`; None: one with the recommended
            solver.
        descends_by_terms: whether ``descend`` of the local terms is a step down `gradient`: it does
            not look for kinks that can hold a unit, and knows of no subclass.
    """

    def __init__(
        self,
        shapes: Sequence[Shape],
        phi: Sequence[Activation],
        edges: Sequence[Edge],
        local: LocalEnergy,
    ) -> None:
        super().__init__()
        self.predictor: Callable[[Network, Tensor], Tensor] | None = None
        self.shapes = [tuple(shape) for shape in shapes]
        self.n_layers = len(self.shapes)
        self.phi = list(phi)
        self.local = local
        self.rate_phi = [local.rate_phi(layer) for layer in self.phi]
        self.terms = [InputTerms(local), *[local] * (self.n_layers - 2), local.of_output()]
        self.W = nn.ModuleList(edges)
        self.edges = list(edges)
        self.channels_last = False
        self._differentiated: Callable[[Sequence[Tensor]], Tensor] | None = None
        self.into = [[e for e in edges if e.target == layer] for layer in range(self.n_layers)]
        self.out_of = [[e for e in edges if e.source == layer] for layer in range(self.n_layers)]
        kinks = any(type(phi).at_kinks_ is not Activation.at_kinks_ for phi in self.rate_phi)
        parts = ("rate", "drive", "signal", "site", "nudge_at", "newton_terms")
        self.plain = self.layerwise and not self._overrides(*parts)
        self.descends_by_terms = self.plain and not kinks
        self.drives = [[e.target for e in out] for out in self.out_of]
        everywhere = -math.inf, math.inf
        above = zip(self.terms[1:], self.phi[1:], strict=True)
        self.domains = [everywhere, *(terms.domain(phi) for terms, phi in above)]
        self.bounded = any(domain != everywhere for domain in self.domains)
        check_edges(self.shapes, self.edges)
        if self.terms[-1].reads_out and self.out_of[-1]:
            to = self.out_of[-1][0].target
            raise ValueError(
                f"model.readout=true: an output that is only read out drives nothing, but an edge "
                f"goes from it to layer {to}; leave the edge out, or choose model.readout=false"
            )
        self.order, self.cycle = in_order(self.n_layers, self.edges)
        if self.cycle and local.feedforward:
            path = " -> ".join(map(str, self.cycle))
            raise ValueError(
                f"{type(local).__name__} needs an order of the layers, but edges go around "
                f"through layers {path}"
            )
        self.biases = [
            next((e for e in into if getattr(e, "bias", None) is not None), None)
            for into in self.into
        ]

    def use_channels_last(self) -> None:
        """Keep pictures, and the kernels that make them, with the channels of a pixel together.

        Convolutions are faster so. States made before this call are not changed.
        """
        self.channels_last = True
        self.to(memory_format=torch.channels_last)

    def compile_energy(self) -> None:
        """Have torch compile ``energy`` for where autograd differentiates it: it takes seconds."""
        self._differentiated = torch.compile(self.energy)

    @property
    def compiled(self) -> bool:
        """Whether torch has compiled the energy: its last digits differ."""
        return self._differentiated is not None

    @property
    def by_autograd(self) -> bool:
        """Whether a subclass gives the energy itself, so that no closed form is known of it."""
        return self._overrides("energy", "driven")

    def _overrides(self, *names: str) -> bool:
        """Whether a subclass overrides one of these methods."""
        return any(getattr(type(self), name) is not getattr(Network, name) for name in names)

    @property
    def asymmetric(self) -> bool:
        """Whether an edge has feedback weights of its own: then layers follow no energy's slope."""
        return any(edge.feedback is not None for edge in self.edges)

    @property
    def layerwise(self) -> bool:
        """Whether layers can be moved by the closed forms of the local terms."""
        return not self._overrides("energy", "driven", "gradient", "layer_gradient")

    @property
    def feedforward(self) -> bool:
        """Whether a feed-forward pass finds the free equilibrium, where every gradient is zero."""
        moves = ("site", "gradient", "layer_gradient", "newton_terms")
        given = ("energy", "driven", "rate", "drive", "signal", *moves)
        return self.local.feedforward and not self._overrides(*given)

    def new_state(self, batch_size: int, generator: torch.Generator | None = None) -> State:
        """A state for batches of that size, like the parameters in dtype and device."""
        like = next(self.parameters(), torch.empty(0)).detach()
        layers = self.shapes, self.phi, self.rate_phi, self.edges
        return State(*layers, batch_size, like, generator, self.channels_last)

    # ------------------------------------------------------------------ differentiable

    def forward(self, x: Tensor) -> Tensor:
        """What the network answers to ``x`` (batch, *sample): its output layer, (batch, n_out).

        The state is relaxed without a nudge, as evaluation does, by `predictor`; the class is the
        largest output. Of a network from `eqprop.load`, ``x`` are samples as the data set has them:
        pictures as (batch, channels, height, width), (batch, height, width) or flat, uint8 of
        0 … 255 or floating point; they are padded and normalised as in the run. Of another network
        they are what it is trained on, floating point. The result has the device and the dtype of
        the parameters, wherever ``x`` lies. Not differentiable: gradients are an estimator's. No
        state, weight or random generator of a training moves.

        Raises:
            ValueError: if samples of that shape or dtype do not fit the network.
        """
        if self.predictor is not None:
            return self.predictor(self, x)
        # by name, for it is made of solvers, and those are made for networks
        usual: Tensor = import_module("eqprop.training.predictor").Predictor()(self, x)
        return usual

    def predict(self, x: Tensor) -> Tensor:
        """The class (batch,), int64, of each sample ``x`` (batch, *sample): see `forward`."""
        return self(x).argmax(1)

    def feed_forward_output(self, x: Tensor) -> Tensor:
        """The output (batch, *shape) of a feed-forward pass from the input, differentiable."""
        u = {0: x.reshape(len(x), *self.shapes[0])}
        rates = {0: self.rate_phi[0](u[0])}
        for layer in self.order:
            u[layer] = self.terms[layer].forward(self.driven(layer, rates), self.phi[layer])
            rates[layer] = self.rate_phi[layer](u[layer])
        return u[self.n_layers - 1]

    def energy(self, u: Sequence[Tensor]) -> Tensor:
        """E(u) per sample (batch,), differentiable in ``u`` and the parameters, without a cost."""
        rates = [phi(layer) for phi, layer in zip(self.rate_phi, u, strict=True)]
        drives = [u[0], *(self.driven(layer, rates) for layer in range(1, self.n_layers))]
        return self._sum(u, rates, drives)

    def field(self, u: Sequence[Tensor], layers: Sequence[int] | None = None) -> list[Tensor]:
        """V(u) of each layer above the input, or of ``layers``, without a cost; differentiable.

        V is the vector field that the layers follow: −∂E/∂u, with the feedback weights in the
        adjoints where edges have some. Each is (batch, *shape).
        """
        layers = range(1, self.n_layers) if layers is None else layers
        if not self.by_autograd:
            parts = self.field_parts(u)
            return [parts.force(layer) for layer in layers]
        with torch.enable_grad():
            own = [alias(layer) for layer in u]
            wanted = [own[layer] for layer in layers]
            grads = torch.autograd.grad(
                self.energy(own).sum(), wanted, create_graph=True, materialize_grads=True
            )
        return [-g for g in grads]

    def field_parts(self, u: Sequence[Tensor]) -> Field:
        """What the field at ``u`` is made of."""
        return Field(self.terms, self.phi, self.rate_phi, self.out_of, self.driven, u)

    def driven(self, layer: int, rates: Any) -> Tensor:
        """The drive of ``layer``, differentiable, from the rates by layer."""
        parts = [edge.forward(rates[edge.source]) for edge in self.into[layer]]
        bias = self._bias(layer)
        return sum(parts[1:], parts[0]) + (0.0 if bias is None else bias)

    def _sum(
        self, u: Sequence[Tensor], rates: Sequence[Tensor], drives: Sequence[Tensor]
    ) -> Tensor:
        terms = [
            self.terms[layer].value(u[layer], rates[layer], drives[layer], self.phi[layer])
            for layer in range(1, self.n_layers)
        ]
        if (of_input := self.local.input_term(u[0])) is not None:
            terms.append(of_input)
        total = torch.stack([term.flatten(1).sum(1) for term in terms]).sum(0)
        return total if self.local.scale == 1.0 else total * self.local.scale

    def _bias(self, layer: int) -> Tensor | None:
        """The bias of ``layer`` in a shape that broadcasts to (batch, *shape)."""
        edge = self.biases[layer]
        return None if edge is None else edge.shaped_bias()

    # ------------------------------------------------------------------ in the state's buffers

    def rate(self, state: State, layer: int) -> Tensor:
        """r of ``layer``."""
        site = state.sites[layer]
        if not state.rate_known[layer]:
            self.rate_phi[layer].value_(site.u, site.r)
            state.rate_known[layer] = state.holding
        return site.r

    def drive(self, state: State, layer: int) -> Tensor:
        """d of ``layer``."""
        out = state.sites[layer].d
        if not state.drive_known[layer]:
            add = self._bias(layer)
            for edge in self.into[layer]:
                edge.drive(self.rate(state, edge.source), out, add, state.memory[edge])
                add = out
            state.drive_known[layer] = state.holding
        return out

    def signal(self, state: State, layer: int) -> Tensor:
        """σ of ``layer``."""
        self.rate(state, layer)
        self.drive(state, layer)
        return self.terms[layer].signal(state.sites[layer], state.signal[layer])

    def site(self, state: State, layer: int, signals: Mapping[int, Tensor] | None = None) -> Site:
        """What the local terms see of ``layer``: all that it holds is up to date now.

        ``signals`` are those of the layers that it drives, where they are at hand.
        """
        site = state.sites[layer]
        self.rate(state, layer)
        self.drive(state, layer)
        add = self.terms[layer].rate_term(site, state.work[layer])
        if site.p is None:  # it drives no other
            return site if add is None else site._replace(p=add)
        for edge in self.out_of[layer]:
            to = edge.target
            signal = signals[to] if signals is not None else self.signal(state, to)
            edge.back.pull(site.r, signal, site.p, add, state.memory[edge])
            add = site.p
        return site

    @torch.no_grad()
    def energies(self, state: State, nudge: Nudge | None = None) -> Tensor:
        """F = E + the nudge, per sample (batch,), of the state as it is."""
        if self.by_autograd:
            total = self.energy(state.u)
        else:
            layers = range(self.n_layers)
            rates = [self.rate(state, layer) for layer in layers]
            total = self._sum(state.u, rates, [self.drive(state, layer) for layer in layers])
        return total if nudge is None else total + nudge.energy(state.u[-1])

    @torch.no_grad()
    def gradient(self, state: State, nudge: Nudge | None = None) -> list[Tensor | None]:
        """∂F/∂u of each layer, in ``state.gradient``; None in the place of a clamped layer.

        Where a unit lies on a kink of its activation, or at an end of its domain, it is the slope
        of the side to which the unit can move downhill, and 0 where there is none.
        """
        free = state.free
        if self.by_autograd:
            self._gradient_by_autograd(state, free)
            if nudge is not None and not state.clamped[-1]:
                state.gradient[-1].add_(nudge.gradient(state.u[-1], state.work[-1]))
        else:
            for layer in free:
                own = self.nudge_at(state, layer, nudge)
                self.layer_gradient(state, layer, self.site(state, layer), own).mul_(
                    self.local.scale
                )
        return [g if layer in free else None for layer, g in enumerate(state.gradient)]

    def nudge_at(self, state: State, layer: int, nudge: Nudge | None) -> Nudge | None:
        """What of ``nudge`` acts on ``layer``: all of it on the output."""
        return nudge if layer == self.n_layers - 1 else None

    def layer_gradient(
        self, state: State, layer: int, site: Site, nudge: Nudge | None = None
    ) -> Tensor:
        """∂F/∂u over ``scale`` of one layer, in ``state.gradient``; as ``gradient`` at kinks."""
        return self.newton_terms(state, layer, site, nudge, curvature=False)[0]

    def newton_terms(
        self,
        state: State,
        layer: int,
        site: Site,
        nudge: Nudge | None = None,
        curvature: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """∂F/∂u and, unless not wanted, the diagonal of ∂²F/∂u², both over ``scale``.

        ``nudge`` is given for the layer that it nudges.
        """
        terms, phi, out = self.terms[layer], self.rate_phi[layer], state.gradient[layer]
        pressure = site.p if site.p is not None else state.work[layer].zero_()
        pulled = phi.pullback(pressure, site.u, site.r, state.pulled[layer])
        torch.sub(terms.state_term(site, out), pulled, out=out)
        bend = state.curvature[layer]
        if nudge is not None:  # before what holds at a kink is asked, for it pulls as well
            out.add_(nudge.gradient(nudged_at(terms, site), bend), alpha=1.0 / terms.scale)
        if phi.pieces:
            phi.at_kinks_(out, pulled, site.u)
        rest_at_bounds_(out, site.u, self.domains[layer])
        if not curvature:
            return out, out
        bend = terms.curvature(site, pressure, pulled, self.norm(state, layer), bend)
        if nudge is not None:
            bend = bend.add_(nudge.curvature(site.u, state.work[layer]), alpha=1.0 / terms.scale)
        return out, bend

    def _gradient_by_autograd(self, state: State, free: Sequence[int]) -> None:
        with torch.enable_grad():
            leaves = [u.detach().requires_grad_(i in free) for i, u in enumerate(state.u)]
            wanted = [leaves[i] for i in free]
            energy = self._differentiated or self.energy
            grads = torch.autograd.grad(energy(leaves).sum(), wanted, allow_unused=True)
        for layer, grad in zip(free, grads, strict=True):
            out = state.gradient[layer]
            out.zero_() if grad is None else out.copy_(grad)

    def norm(self, state: State, layer: int) -> Tensor | float:
        """``Σ_e diag(K_eᵀ stiffness K_e)`` over the edges out of ``layer``.

        Where several of them end in one layer, it is a bound on the diagonal of their sum.
        """
        known = state.norm[layer]
        if known is not None:
            return known
        total: Tensor | float = 0.0
        constant = True
        for edge in self.out_of[layer]:
            self.signal(state, edge.target)
            stiffness = self.terms[edge.target].stiffness(state.sites[edge.target])
            constant = constant and edge.linear and not isinstance(stiffness, Tensor)
            if isinstance(stiffness, Tensor) or stiffness != 0.0:
                rate, memory = self.rate(state, layer), state.memory[edge]
                beside = self.drives[layer].count(edge.target)  # (Σ_n k)² ≤ n Σ k²
                total = total + beside * edge.squared_norm(rate, stiffness, memory)
        if constant and state.holding:  # as long as the weights are
            state.norm[layer] = total
        return total

    @torch.no_grad()
    def feed_forward(self, state: State) -> None:
        """Put each free layer where its drive alone would, in order.

        Where the network is ``feedforward``, that is the free equilibrium.
        """
        for layer in self.order:
            drive = self.drive(state, layer)
            if not state.clamped[layer]:
                state.u[layer].copy_(self.terms[layer].forward(drive, self.phi[layer]))
                state.moved(layer)
        if state.holding and self.feedforward and not any(state.clamped[1:]):
            state.at_rest = set(range(1, self.n_layers))


def rest_at_bounds_(grad: Tensor, u: Tensor, bounds: tuple[float, float]) -> None:
    """Make ``grad`` 0 where it would move ``u`` out of its bounds."""
    low, high = bounds
    if math.isfinite(low) or math.isfinite(high):
        grad.masked_fill_(((u <= low) & (grad > 0)) | ((u >= high) & (grad < 0)), 0.0)
