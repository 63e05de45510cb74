"""Networks for the tests of the core, and what autograd makes of their energies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from eqprop.network import (
    CrossEntropy,
    Dense,
    Edge,
    Gaussian,
    Hopfield,
    LocalEnergy,
    Network,
    Nudge,
    PredictiveCoding,
    RateHopfield,
    SquaredError,
    State,
    WeightGradient,
)
from eqprop.network.activation import Activation, as_activation, one_a_layer
from eqprop.network.pool import Soft

LOCALS: dict[str, type[LocalEnergy]] = {
    "gaussian": Gaussian,
    "hopfield": Hopfield,
    "predictive_coding": PredictiveCoding,
    "rate_hopfield": RateHopfield,
}
COSTS = {"squared_error": SquaredError, "cross_entropy": CrossEntropy}
SHAPES: list[tuple[int, ...]] = [(4,), (6,), (5,), (3,)]
CHAIN = [(0, 1), (1, 2), (2, 3)]
GRAPH = [(0, 2), (2, 3), (0, 1), (1, 3), (1, 2)]
"""Two edges into layers 2 and 3, two out of layers 0 and 1; not in the order of the layers."""


class Conv(Edge):
    """Known by ``forward`` alone: 3 × 3 with a bias a channel."""

    def __init__(self, in_shape: Sequence[int], channels: int) -> None:
        super().__init__(in_shape, (channels, *in_shape[1:]))
        self.weight = torch.nn.Parameter(0.4 * torch.randn(channels, in_shape[0], 3, 3))
        self.bias = torch.nn.Parameter(torch.randn(channels))

    def forward(self, r: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(r, self.weight, padding=1)


class Same(Edge):
    """The identity: an edge without weights."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape, shape)

    def forward(self, r: Tensor) -> Tensor:
        return r.clone()


def fits(kind: str, phi: Any) -> bool:
    """Whether the energy can have that activation: one of the two needs its inverse."""
    inverse = type(as_activation(phi)).inverse
    return kind != "rate_hopfield" or inverse is not Activation.inverse


def joined(edge: Edge, source: int, target: int) -> Edge:
    edge.source, edge.target = source, target
    return edge


def build(
    local: LocalEnergy,
    phi: Any = "tanh",
    joins: Sequence[tuple[int, int]] = CHAIN,
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    edge: type[Dense] = Dense,
    network: type[Network] = Network,
) -> Network:
    """Dense edges, the first into each layer with its bias, in float64; a φ or one a layer."""
    edges, seen = [], set()
    for source, target in joins:
        made = edge(shapes[source], shapes[target][0], bias=target not in seen)
        edges.append(joined(made, source, target))
        seen.add(target)
    phis = phi if isinstance(phi, list) else ["identity", *[phi] * (len(shapes) - 1)]
    return network(shapes, one_a_layer(phis, len(shapes)), edges, local).double()


def images(local: LocalEnergy, phi: Any = "tanh") -> Network:
    """Two convolutions, an edge around the second, and a dense layer on top."""
    shapes: list[tuple[int, ...]] = [(2, 4, 3), (3, 4, 3), (3, 4, 3), (4,)]
    edges = [
        joined(Conv(shapes[0], 3), 0, 1),
        joined(Conv(shapes[1], 3), 1, 2),
        joined(Same(shapes[1]), 1, 2),
        joined(Dense(shapes[2], 4), 2, 3),
    ]
    return Network(shapes, one_a_layer([phi] * 3, 4), edges, local).double()


Layer = tuple[tuple[int, Callable[..., Edge]], ...]
"""The edges into a layer: from which layer, and what makes it from the shape there."""


def graph(
    local: LocalEnergy, phi: Any, in_shape: tuple[int, ...], layers: Sequence[Layer]
) -> Network:
    """Layers given by the edges into them, in float64; one φ for the hidden ones, or a list."""
    shapes, edges = [in_shape], []
    for target, into in enumerate(layers, start=1):
        made = [joined(make(shapes[source]), source, target) for source, make in into]
        shapes.append(made[0].out_shape)
        edges += made
    phis = phi if isinstance(phi, list) else ["identity", *[phi] * (len(layers) - 1), "identity"]
    return Network(shapes, one_a_layer(phis, len(shapes)), edges, local).double()


def random_state(
    network: Network, batch: int = 3, clamped: Sequence[int] = (0,), scale: float = 1.0
) -> State:
    state = network.new_state(batch)
    for layer, u in enumerate(state.u):
        _draw(u, network, layer, scale)
        if layer in clamped:
            state.clamp(layer, u.clone())
    return state


def _draw(u: Tensor, network: Network, layer: int, scale: float) -> None:
    """N(0, scale²), bent into the interval in which the energy is finite."""
    u.normal_().mul_(scale)
    low, high = network.terms[layer].domain(network.phi[layer])
    if math.isfinite(high):
        u.sigmoid_().mul_(high - low).add_(low)
    elif math.isfinite(low):
        u.abs_().add_(low)


def random_nudge(
    network: Network, cost: Any = "squared_error", beta: float = 0.7, batch: int = 3
) -> Nudge:
    n_out = network.shapes[-1][0]
    target = torch.nn.functional.one_hot(torch.randint(n_out, (batch,)), n_out)
    like = next(network.parameters()).detach()
    cost = COSTS[cost](beta) if isinstance(cost, str) else cost
    return Nudge(cost, target.to(like), like.new_tensor(beta))


def weight_gradient(network: Network, state: State) -> list[Tensor]:
    """∂⟨E⟩/∂θ by the closed forms."""
    total = WeightGradient(network)
    total.begin()
    total.add(state, 1.0)
    return [g.clone() for g in total.finish(state)]


# ---------------------------------------------------------------------- by autograd


def total_energy(network: Network, u: Sequence[Tensor], nudge: Nudge | None) -> Tensor:
    """F per sample, by the differentiable energy."""
    energy = network.energy(u)
    if nudge is None:
        return energy
    return energy + nudge.beta * nudge.cost.cost(u[-1], nudge.target)


def gradient_by_autograd(
    network: Network, u: Sequence[Tensor], nudge: Nudge | None = None
) -> list[Tensor]:
    with torch.enable_grad():
        leaves = [layer.detach().clone().requires_grad_() for layer in u]
        total = total_energy(network, leaves, nudge).sum()
        return list(torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True))


def curvature_by_autograd(
    network: Network, u: Sequence[Tensor], layer: int, nudge: Nudge | None = None
) -> Tensor:
    """The diagonal of ∂²F/∂u² of one layer."""

    leaf = u[layer].detach().clone().requires_grad_()
    layers = [leaf if i == layer else other.detach() for i, other in enumerate(u)]
    with torch.enable_grad():
        total = total_energy(network, layers, nudge).sum()
        (slope,) = torch.autograd.grad(total, leaf, create_graph=True)
    diagonal = torch.zeros_like(leaf)
    for unit in range(leaf[0].numel() if slope.requires_grad else 0):  # samples are independent
        one = slope.flatten(1)[:, unit].sum()
        (row,) = torch.autograd.grad(one, leaf, retain_graph=True, materialize_grads=True)
        diagonal.flatten(1)[:, unit] = row.flatten(1)[:, unit]
    return diagonal.detach()


def weights_by_autograd(network: Network, u: Sequence[Tensor]) -> list[Tensor]:
    with torch.enable_grad():
        energy = network.energy([layer.detach() for layer in u]).mean()
        parameters = list(network.parameters())
        return list(
            torch.autograd.grad(energy, parameters, allow_unused=True, materialize_grads=True)
        )


def assert_close_lists(found: Sequence[Tensor], wanted: Sequence[Tensor], **how: Any) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, **how)


def assert_by_autograd(
    network: Network, state: State, nudge: Nudge | None = None, curvature: bool = True
) -> None:
    """Energies, state gradient, curvature and weight gradient are those of ``energy``."""
    u = [layer.clone() for layer in state.u]
    torch.testing.assert_close(
        network.energies(state, nudge), total_energy(network, u, nudge).detach()
    )
    wanted = gradient_by_autograd(network, u, nudge)
    found = [None if g is None else g.clone() for g in network.gradient(state, nudge)]
    assert [g is None for g in found] == state.clamped
    for layer in state.free:
        torch.testing.assert_close(found[layer], wanted[layer])
    assert_close_lists(weight_gradient(network, state), weights_by_autograd(network, u))
    if network.layerwise and curvature:
        for layer in state.free:
            assert_newton_terms(network, state, layer, nudge)
    assert all(torch.equal(a, b) for a, b in zip(u, state.u, strict=True))


def assert_newton_terms(
    network: Network, state: State, layer: int, nudge: Nudge | None = None
) -> None:
    """The gradient and the curvature that a Newton step of one layer uses."""
    with torch.no_grad():
        own = nudge if layer == network.n_layers - 1 else None
        terms = network.newton_terms(state, layer, network.site(state, layer), own)
        gradient, curvature = (term * network.local.scale for term in terms)
    torch.testing.assert_close(gradient, gradient_by_autograd(network, state.u, nudge)[layer])
    with linearised(network, state.u):
        wanted = curvature_by_autograd(network, state.u, layer, nudge)
    if layer and chords(network, layer):
        wanted += chord_minus_tangent(network, state.u, layer)
    torch.testing.assert_close(curvature, wanted)


@contextmanager
def linearised(network: Network, u: Sequence[Tensor]) -> Iterator[None]:
    """Soft pools as they are to first order at ``u``: a curvature leaves their own out."""
    soft = [edge for edge in network.W if isinstance(getattr(edge, "pool", None), Soft)]
    for edge in soft:
        at = network.rate_phi[edge.source](u[edge.source]).detach()
        edge.forward = partial(_to_first_order, edge.forward(at), jacobian(edge, at), at)
    yield
    for edge in soft:
        del edge.forward


def _to_first_order(value: Tensor, slopes: Tensor, at: Tensor, r: Tensor) -> Tensor:
    return value + torch.einsum("boi,bi->bo", slopes, (r - at).flatten(1)).view_as(value)


def jacobian(edge: Edge, at: Tensor) -> Tensor:
    """∂K/∂r (batch, units of the target, units of the source)."""
    rows = torch.func.vmap(torch.func.jacrev(lambda r: edge.forward(r[None])[0]))(at)
    return rows.detach().reshape(len(at), -1, at[0].numel())


def chords(network: Network, layer: int) -> bool:
    """Whether a Newton step of that layer goes along the chord, not the tangent."""
    return type(network.local).curvature is RateHopfield.curvature and not network.phi[layer].pieces


def chord_minus_tangent(network: Network, u: Sequence[Tensor], layer: int) -> Tensor:
    """Of ∂E/∂u = φ⁻¹(u) − p as a function of u: it vanishes at φ(p)."""
    phi, here = network.phi[layer], u[layer].clone().requires_grad_()
    slope = gradient_by_autograd(network, u)[layer]
    inverse = phi.inverse(here)
    (tangent,) = torch.autograd.grad(inverse.sum(), here)
    gap = here - phi(inverse - slope)
    chord = torch.where(gap.abs() < 1e-8, tangent, slope / gap)
    return (chord - tangent).detach()


# ---------------------------------------------------------------------- equilibria


def equilibrium(network: Network, state: State, nudge: Nudge | None = None) -> list[Tensor]:
    """The stationary point of F near the state, the clamped layers held, by Newton's method."""
    u = [layer.clone() for layer in state.u]
    free = state.free
    for _ in range(60):
        g = _pack([gradient_by_autograd(network, u, nudge)[i] for i in free])
        if float(g.norm()) < 1e-12:
            return u
        move = torch.linalg.solve(_hessian(network, u, free, nudge), g)
        parts = torch.split(_pack([u[i] for i in free]) - move, [u[i].numel() for i in free])
        for i, part in zip(free, parts, strict=True):
            u[i] = part.view_as(u[i])
    raise AssertionError("the test's own Newton iteration did not converge")


def implicit_gradient(network: Network, state: State, cost: Any, target: Tensor) -> list[Tensor]:
    """d⟨C(u*)⟩/dθ at the free equilibrium u*: −∂²E/∂θ∂u · (∂²E/∂u²)⁻¹ ∂⟨C⟩/∂u."""
    free, u = state.free, equilibrium(network, state)
    leaves = [layer.clone().requires_grad_() for layer in u]
    mean_cost = cost.cost(leaves[-1], target).mean()
    pull = torch.autograd.grad(mean_cost, leaves, allow_unused=True, materialize_grads=True)
    adjoint = torch.linalg.solve(_hessian(network, u, free), _pack([pull[i] for i in free]))
    force = torch.autograd.grad(network.energy(leaves).sum(), leaves, create_graph=True)
    along = _pack([force[i] for i in free]) @ adjoint
    parameters = list(network.parameters())
    grads = torch.autograd.grad(along, parameters, allow_unused=True, materialize_grads=True)
    return [-g for g in grads]


def _pack(layers: Sequence[Tensor]) -> Tensor:
    return torch.cat([layer.flatten() for layer in layers])


def _hessian(
    network: Network, u: Sequence[Tensor], free: Sequence[int], nudge: Nudge | None = None
) -> Tensor:
    def total(flat: Tensor) -> Tensor:
        parts = iter(torch.split(flat, [u[i].numel() for i in free]))
        layers = [next(parts).view_as(x) if i in free else x for i, x in enumerate(u)]
        return total_energy(network, layers, nudge).sum()

    return torch.autograd.functional.hessian(total, _pack([u[i] for i in free]).clone())
