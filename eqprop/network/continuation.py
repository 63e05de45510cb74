"""A network continued to complex states: what nudges of complex strength relax."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from eqprop.network.activation import ACTIVATIONS
from eqprop.network.conv import Conv
from eqprop.network.edge import Edge, Memory
from eqprop.network.network import Network
from eqprop.network.pool import Pool
from eqprop.network.state import State

COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


class Continuation(Network):
    """The same energy as an analytic function of complex states, with the weights of ``network``.

    The input is clamped, and real; of a gradient by the weights, `WeightGradient` is the real part.

    Raises:
        ValueError: one line, if a part is not known to be analytic.
    """

    def __init__(self, network: Network) -> None:
        _refuse(network)
        edges = [by_parts(edge) for edge in network.edges]
        super().__init__(network.shapes, network.phi, edges, network.local)
        self.domains = [(-math.inf, math.inf)] * self.n_layers  # complex numbers have no order
        self.bounded = False
        self.channels_last = network.channels_last

    def new_state(self, batch_size: int, generator: torch.Generator | None = None) -> State:
        like = next(self.parameters()).detach()
        like = like.new_empty(0, dtype=COMPLEX[like.dtype])
        layers = self.shapes, self.phi, self.rate_phi, self.edges
        return State(*layers, batch_size, like, generator, self.channels_last)

    def follow(self, state: State, to: State) -> None:
        """Put ``to``, of this network, where ``state`` is, of the real one.

        What is known there stays known: what the input drives, and which layers are at rest.
        """
        if not state.clamped[0]:
            raise ValueError("a complex phase needs an input that is clamped")
        to.clamped = list(state.clamped)
        to.forget()
        for layer, u in enumerate(state.u):
            to.u[layer] = u
        if not (to.holding and state.holding):
            return
        to.at_rest = set(state.at_rest)
        for layer, into in enumerate(self.into):
            edges = [edge for edge in into if isinstance(edge, ByParts) and edge.of_input]
            if state.drive_known[layer] and len(edges) == len(into):
                to.sites[layer].d.copy_(state.sites[layer].d)
                to.drive_known[layer] = True
                to.memory |= {edge: dict(state.memory[edge.edge]) for edge in edges}


class ByParts(Edge):
    """A linear edge on complex rates: its real weights act on real and imaginary parts.

    Both are one batch. The input has no imaginary part.
    """

    def __init__(self, edge: Edge) -> None:
        super().__init__(edge.in_shape, edge.out_shape)
        self.source, self.target = edge.source, edge.target
        self.edge = edge
        self.of_input = edge.source == 0

    @property
    def linear(self) -> bool:  # type: ignore[override]
        return self.edge.linear

    @property
    def bias(self) -> Tensor | None:
        """That of the edge itself."""
        return getattr(self.edge, "bias", None)

    def weights(self) -> Iterator[nn.Parameter]:
        return self.edge.weights()

    def forward(self, r: Tensor) -> Tensor:
        return self._joined(self.edge.forward(self._split(r)))

    def drive(self, r: Tensor, out: Tensor, add: Tensor | None, memory: Memory) -> None:
        parts = self._split(r)
        found = parts.new_empty(len(parts), *self.out_shape)
        self.edge.drive(parts, found, None, memory)
        torch.add(self._joined(found), 0.0 if add is None else add, out=out)

    def pull(
        self, r: Tensor, signal: Tensor, out: Tensor, add: Tensor | None, memory: Memory
    ) -> None:
        parts = self._split(r)
        found = torch.empty_like(parts)
        self.edge.pull(parts, self._split(signal), found, None, memory)
        torch.add(self._joined(found), 0.0 if add is None else add, out=out)

    def gradient(
        self,
        r: Tensor,
        signal: Tensor,
        scale: float,
        out: Sequence[Tensor],
        add: bool,
        memory: Memory,
    ) -> None:
        """The real part, Re(signal) · ∂K(Re r)/∂θ − Im(signal) · ∂K(Im r)/∂θ."""
        self.edge.gradient(self._split(r), self._split(signal, -1.0), scale, out, add, memory)

    def squared_norm(self, r: Tensor, stiffness: float | Tensor, memory: Memory) -> Tensor:
        """That at the real part of r: a Newton step needs no more than a measure of it."""
        real, kept = r.real.contiguous(), Memory()
        self.edge.drive(real, real.new_empty(len(real), *self.out_shape), None, kept)
        stiffness = stiffness.real if isinstance(stiffness, Tensor) else stiffness
        return self.edge.squared_norm(real, stiffness, kept)

    def _split(self, z: Tensor, sign: float = 1.0) -> Tensor:
        """(batch, …) complex as (2 batch, …) real: the real parts, then ``sign`` · the others."""
        return z.real.contiguous() if self.of_input else torch.cat([z.real, z.imag * sign])

    def _joined(self, parts: Tensor) -> Tensor:
        return parts if self.of_input else torch.complex(*parts.chunk(2))


class PooledByParts(ByParts):
    """A convolution by parts, and behind it a pool that is no linear one, on complex pixels."""

    linear = ByParts.linear
    squared_norm = ByParts.squared_norm

    def __init__(self, edge: Conv, pool: Pool) -> None:
        super().__init__(edge)
        channels, height, width = edge.out_shape
        conv = copy.copy(edge)  # it shares the weights
        conv.pool = None
        conv.out_shape = channels, height * pool.size, width * pool.size
        self.conv = ByParts(conv)
        self.pool = pool

    def forward(self, r: Tensor) -> Tensor:
        return self.pool(self.conv.forward(r))

    def drive(self, r: Tensor, out: Tensor, add: Tensor | None, memory: Memory) -> None:
        product = out.new_empty(len(out), *self.conv.out_shape)
        self.conv.drive(r, product, None, memory)
        torch.add(self.pool.reduce(product, memory), 0.0 if add is None else add, out=out)

    def pull(
        self, r: Tensor, signal: Tensor, out: Tensor, add: Tensor | None, memory: Memory
    ) -> None:
        self.conv.pull(r, self.pool.spread(signal, memory), out, add, memory)

    def gradient(
        self,
        r: Tensor,
        signal: Tensor,
        scale: float,
        out: Sequence[Tensor],
        add: bool,
        memory: Memory,
    ) -> None:
        self.conv.gradient(r, self.pool.spread(signal, memory), scale, out, add, memory)


def by_parts(edge: Edge) -> ByParts:
    """The edge between complex layers.

    Raises:
        ValueError: one line, if it is not known to be analytic.
    """
    if edge.linear:
        return ByParts(edge)
    pool = getattr(edge, "pool", None)
    if type(edge) is Conv and pool is not None and pool.analytic:
        return PooledByParts(edge, pool)
    name = type(edge).__name__ if pool is None else f"pool={type(pool).__name__.lower()}"
    raise ValueError(f"{name} is not analytic; choose pool=average, pool=soft or no pool")


def _refuse(network: Network) -> None:
    """Raise ValueError if the network has a part that is not known to be analytic."""
    if not network.plain:
        raise ValueError(
            f"{type(network).__name__} overrides what its energy is made of, which is therefore "
            "not known for complex states"
        )
    if network.asymmetric:
        raise ValueError(
            "layers with feedback weights of their own follow no energy that complex states have; "
            "choose model.feedback=symmetric or estimator=asymmetric"
        )
    if not network.local.analytic:
        name = type(network.local).__name__
        raise ValueError(f"{name} does not say that it is analytic (analytic = True)")
    for phi in network.phi:
        if not phi.analytic:
            names = ", ".join(name for name, known in ACTIVATIONS.items() if known.analytic)
            raise ValueError(f"the activation {phi.name} is not analytic; choose {names}")
    dtype = next(network.parameters()).dtype
    if dtype not in COMPLEX:
        name = str(dtype).removeprefix("torch.")
        raise ValueError(f"device.dtype={name} has no complex numbers; choose float32 or float64")
