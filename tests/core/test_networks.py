"""Networks that are no chain, against the formula written out and autograd."""

from __future__ import annotations

import pytest
import torch
from networks import (
    CHAIN,
    COSTS,
    GRAPH,
    LOCALS,
    SHAPES,
    Conv,
    Same,
    assert_by_autograd,
    assert_close_lists,
    build,
    fits,
    images,
    joined,
    random_nudge,
    random_state,
    weight_gradient,
    weights_by_autograd,
)

from eqprop.estimator import CenteredEquilibriumPropagation, EquilibriumPropagation
from eqprop.network import (
    Dense,
    Gaussian,
    Hopfield,
    Network,
    PredictiveCoding,
    SquaredError,
    chain,
)
from eqprop.network.activation import ACTIVATIONS, one_a_layer
from eqprop.relaxation import Sweep
from eqprop.relaxation.sweep import groups

SIZES = [(4, 6), (6, 5), (5, 3)]

each_kind = pytest.mark.parametrize("kind", sorted(LOCALS))


PRIMITIVES = {
    "tanh": lambda r: r * r.atanh() + 0.5 * (1 - r * r).log(),
    "sigmoid": lambda r: r * r.log() + (1 - r) * (1 - r).log(),
    "relu6": lambda r: 0.5 * r * r,
}
"""G with G' = φ⁻¹."""


def written_out(kind, network, u):
    """The energy of dense edges as one writes it on paper."""
    of_rates = kind in ("predictive_coding", "rate_hopfield")
    r = u if of_rates else [phi(layer) for phi, layer in zip(network.phi, u, strict=True)]
    energy = 0.5 * u[0].square().sum(1) if kind == "hopfield" else 0.0
    for layer in range(1, len(u)):
        drive = 0.0
        for edge in network.W:
            if edge.target == layer:
                drive = drive + r[edge.source] @ edge.weight.T
        for name, bias in network.named_parameters():
            if name.endswith("bias") and network.W[int(name.split(".")[1])].target == layer:
                drive = drive + bias
        if kind == "gaussian":
            energy = energy + (u[layer] - drive).square().sum(1)
        elif kind == "predictive_coding":
            energy = energy + 0.5 * (u[layer] - network.phi[layer](drive)).square().sum(1)
        elif kind == "rate_hopfield":
            energy = energy + (
                PRIMITIVES[network.phi[layer].name](u[layer]) - u[layer] * drive
            ).sum(1)
        else:
            energy = energy + (0.5 * u[layer].square() - r[layer] * drive).sum(1)
    return energy


@each_kind
@pytest.mark.parametrize("joins", [CHAIN, GRAPH], ids=["chain", "graph"])
def test_the_energy_is_the_sum_over_the_edges(kind, joins):
    network = build(LOCALS[kind](), ["identity", "tanh", "relu6", "sigmoid"], joins)
    u = random_state(network).u
    torch.testing.assert_close(network.energy(u), written_out(kind, network, u))


@pytest.mark.parametrize(
    ("kind", "phi"),
    [
        (kind, phi)
        for kind in sorted(LOCALS)
        for phi in ("tanh", "softplus", "leaky_relu", torch.sin)
        if fits(kind, phi)
    ],
)
@pytest.mark.parametrize("clamped", [(0,), (), (0, 3), (1,), (0, 2)])
def test_closed_forms_of_a_graph_are_autograd_s(kind, phi, clamped):
    network = build(LOCALS[kind](), phi, GRAPH)
    for nudge in (None, *(random_nudge(network, cost) for cost in sorted(COSTS))):
        assert_by_autograd(network, random_state(network, clamped=clamped), nudge)


@each_kind
@pytest.mark.parametrize("clamped", [(0,), (), (1, 3)])
def test_gradients_by_an_edge_that_is_known_by_its_function(kind, clamped):
    """Convolutions, a bias a channel, an edge without weights, a dense layer on images."""
    network = images(LOCALS[kind]())
    state = random_state(network, 2, clamped)
    u = [layer.clone() for layer in state.u]
    wanted = torch.autograd.grad(
        network.energy([layer.requires_grad_() for layer in u]).sum(), u, retain_graph=False
    )
    found = network.gradient(state)
    for layer in state.free:
        torch.testing.assert_close(found[layer], wanted[layer])
    assert_close_lists(weight_gradient(network, state), weights_by_autograd(network, state.u))


@pytest.mark.parametrize("stiffness", [2.0, "each"])
def test_the_norm_of_an_edge_without_a_closed_form_bounds_the_diagonal(stiffness):
    """The largest eigenvalue of KᵀK, or nearly that, times the largest stiffness."""
    edge = Conv((2, 4, 3), 3).double()
    r = torch.randn(5, 2, 4, 3, dtype=torch.float64)
    K = torch.autograd.functional.jacobian(lambda x: edge.forward(x[None]).flatten(), r[0])
    K = K.flatten(1)
    each = torch.rand(5, 3, 4, 3, dtype=torch.float64)
    largest = 2.0 if stiffness == 2.0 else float(each.max())
    found = edge.squared_norm(r, 2.0 if stiffness == 2.0 else each, {})
    eigenvalue = float(torch.linalg.eigvalsh(K.T @ K)[-1])
    assert 0.8 * largest * eigenvalue < float(found) <= largest * eigenvalue * (1 + 1e-9)


def test_the_norm_of_a_dense_edge_is_the_diagonal():
    edge = Dense((2, 3, 2), 5).double()
    each = torch.rand(4, 5, dtype=torch.float64)
    r = torch.randn(4, 2, 3, 2, dtype=torch.float64)
    for sample in range(4):
        diagonal = (edge.weight.T @ torch.diag(each[sample]) @ edge.weight).diagonal()
        found = edge.squared_norm(r, each, {})[sample]
        torch.testing.assert_close(found, diagonal.view(2, 3, 2))
    diagonal = 3.0 * (edge.weight.T @ edge.weight).diagonal()
    torch.testing.assert_close(edge.squared_norm(r, 3.0, {}), diagonal.view(2, 3, 2))


@each_kind
def test_an_edge_by_its_function_alone_is_the_dense_one(kind):
    """Every closed form of the dense edge against the generic implementation."""

    class Product(Dense):
        def forward(self, r):
            return r.flatten(1) @ self.weight.T

    ours, plain = (
        build(LOCALS[kind](), "tanh", GRAPH),
        build(LOCALS[kind](), "tanh", GRAPH, edge=Product),
    )
    plain.load_state_dict(ours.state_dict())
    state = random_state(ours)
    other = random_state(plain)
    other.clamp(0, state.u[0])
    other.u[:] = state.u
    assert_close_lists(ours.gradient(state)[1:], plain.gradient(other)[1:])
    assert_close_lists(weight_gradient(ours, state), weight_gradient(plain, other))


@pytest.mark.parametrize("local", [Gaussian, PredictiveCoding])
def test_feed_forward_through_a_graph_is_the_minimum(local):
    """And what ``forward`` computes, differentiably."""
    network = build(local(), "tanh", GRAPH)
    state = random_state(network)
    with state.held():
        network.feed_forward(state)
    torch.testing.assert_close(network.energies(state), torch.zeros(3, dtype=torch.float64))
    for g in network.gradient(state)[1:]:
        torch.testing.assert_close(g, torch.zeros_like(g))
    torch.testing.assert_close(network(state.u[0]), state.u[-1])


def test_even_and_odd_layers_are_a_colouring():
    """No edge joins two layers of a group; the output's group comes first."""
    for joins in (CHAIN, GRAPH):
        found = groups(build(Hopfield(), "tanh", joins), "even_odd")
        assert sorted(layer for group in found for layer in group) == [0, 1, 2, 3]
        assert 3 in found[0]
        for group in found:
            assert not any(a in group and b in group for a, b in joins)
    assert groups(build(Hopfield()), "even_odd") == [[3, 1], [2, 0]]
    assert groups(build(Hopfield()), "backward") == [[3], [2], [1], [0]]
    assert groups(build(Hopfield()), "forward") == [[0], [1], [2], [3]]


def test_a_chain_of_one_edge_without_weights():
    """Nothing to learn, and nothing that fails for it."""
    phi = [ACTIVATIONS["identity"], ACTIVATIONS["tanh"]]
    network = Network([(3,), (3,)], phi, [joined(Same((3,)), 0, 1)], Hopfield())
    state = network.new_state(2)
    state.clamp(0, torch.randn(2, 3))
    assert weight_gradient(network, state) == []
    wanted = state.u[1] - (1 - torch.tanh(state.u[1]) ** 2) * state.u[0]
    torch.testing.assert_close(network.gradient(state)[1], wanted)


@each_kind
@pytest.mark.parametrize("estimator", [EquilibriumPropagation, CenteredEquilibriumPropagation])
def test_a_dense_chain_has_the_same_bits_as_edges(kind, estimator):
    """Written as layers in a row or edge by edge: first weights, states, gradients."""
    phi, cost, ends = ["identity", "tanh", "sigmoid", "identity"], SquaredError(), []
    for by_edges in (False, True):
        torch.manual_seed(8)
        if by_edges:
            edges = [joined(Dense((n,), m), i, i + 1) for i, (n, m) in enumerate(SIZES)]
            network = Network(SHAPES, one_a_layer(phi, 4), edges, LOCALS[kind]())
        else:
            network = chain(LOCALS[kind], (2, 2), [6, 5], 3, phi, cost, 3)
        state = network.new_state(3)
        state.clamp(0, torch.linspace(-1.0, 1.0, 12).view(3, 4))
        solver = Sweep("newton", "even_odd", init="zeros" if kind == "rate_hopfield" else "auto")
        found = estimator(0.5).estimate(network, state, solver, cost, torch.eye(3))
        ends.append([*network.parameters(), *state.u, *found.gradients])
    assert_close_lists(*ends, rtol=0, atol=0)
