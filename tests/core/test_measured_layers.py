"""What each layer is told to be: parts that add up, residuals and slopes by autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import GRAPH, build, gradient_by_autograd, images
from torch import Tensor

import eqprop
from eqprop.estimator import (
    Backprop,
    CenteredEquilibriumPropagation,
    DualPropagation,
    Estimate,
    Estimator,
)
from eqprop.estimator.estimator import measured_layers, saturated
from eqprop.network import (
    Gaussian,
    Hopfield,
    LocalEnergy,
    Network,
    Nudge,
    PredictiveCoding,
    RateHopfield,
    SquaredError,
    State,
)
from eqprop.relaxation import Euler, Newton, Solver, Sweep

LOCALS = {
    "gaussian": (Gaussian, "tanh"),
    "hopfield": (Hopfield, "sigmoid"),
    "predictive coding": (PredictiveCoding, "tanh"),
    "rate hopfield": (RateHopfield, "sigmoid"),
}
MOST = {name: 1.0 if phi == "tanh" else 0.25 for name, (_, phi) in LOCALS.items()}
"""The steepest slope of each one's activation."""
BETA = 0.5
each_local = pytest.mark.parametrize("name", LOCALS)


def network_of(name: str, shape: str) -> Network:
    local, phi = LOCALS[name]
    return images(local(), phi) if shape == "images" else build(local(), phi, GRAPH)


def estimated(
    network: Network, solver: Solver, measure: bool = True
) -> tuple[Estimate, State, Tensor]:
    generator = torch.Generator().manual_seed(3)
    state = network.new_state(4, generator)
    state.clamp(0, torch.randn(state.u[0].shape, generator=generator, dtype=torch.float64))
    target = torch.eye(network.shapes[-1][0], dtype=torch.float64)[[0, 1, 2, 0]]
    estimator = CenteredEquilibriumPropagation(BETA)
    estimate = estimator.estimate(network, state, solver, SquaredError(), target, measure=measure)
    return estimate, state, target


def by_layer(metrics: dict[str, float], kind: str) -> dict[int, float]:
    head = f"{kind}/"
    return {int(k.removeprefix(head)): v for k, v in metrics.items() if k.startswith(head)}


@each_local
@pytest.mark.parametrize("shape", ["graph", "images"])
def test_layers_energies_add_up_to_the_energy(name: str, shape: str) -> None:
    network = network_of(name, shape)
    estimate, state, _ = estimated(network, Euler(dt=0.05, n_relax=6))
    of_input = network.local.input_term(state.u[0])
    rest = 0.0 if of_input is None else float(of_input.flatten(1).sum(1).mean())
    parts = by_layer(estimate.metrics, "energy/layer")
    assert list(parts) == list(range(1, network.n_layers))
    assert sum(parts.values()) + rest == pytest.approx(estimate.metrics["energy/nudged"])


def test_a_layer_s_energy_is_the_published_sum_over_its_units() -> None:
    network = build(Gaussian(), "tanh")
    estimate, state, _ = estimated(network, Euler(dt=0.05, n_relax=6))
    for layer, found in by_layer(estimate.metrics, "energy/layer").items():
        edge = network.edges[layer - 1]
        below = state.u[0] if layer == 1 else state.u[layer - 1].tanh()
        drive = below @ edge.weight.detach().T + edge.bias.detach()
        assert found == pytest.approx(float((state.u[layer] - drive).square().sum(1).mean()))


@each_local
@pytest.mark.parametrize("solver", ["euler", "sweep"])
def test_layers_residuals_add_up_and_are_autograd_s(name: str, solver: str) -> None:
    if name == "rate hopfield":  # whose states must stay off the ends of their range
        chosen: Solver = Sweep("projected", n_relax=2 if solver == "sweep" else 3)
    else:
        chosen = Newton(n_relax=2) if solver == "sweep" else Euler(dt=0.05, n_relax=6)
    network = network_of(name, "graph")
    estimate, state, target = estimated(network, chosen)
    nudge = Nudge(SquaredError(), target, torch.tensor(BETA, dtype=torch.float64))
    found = by_layer(estimate.metrics, "relaxation/nudged_residual")
    gradients = gradient_by_autograd(network, state.u, nudge)
    for layer, gradient in enumerate(gradients[1:], 1):
        assert found[layer] == pytest.approx(float(gradient.flatten(1).norm(dim=1).mean()))
    assert sum(found.values()) == pytest.approx(estimate.metrics["relaxation/nudged_residual"])
    free = by_layer(estimate.metrics, "relaxation/free_residual")
    assert sum(free.values()) == pytest.approx(estimate.metrics["relaxation/free_residual"])
    assert bool(free) != network.feedforward  # there all of them are zero


def slope(phi: Any, at: Tensor) -> Tensor:
    leaf = at.detach().clone().requires_grad_()
    return torch.autograd.grad(phi(leaf).sum(), leaf)[0]


@pytest.mark.parametrize(
    ("name", "most"), [("sigmoid", 0.25), ("tanh", 1.0), ("softplus", 1.0), ("relu", 1.0)]
)
@pytest.mark.parametrize("local", [Hopfield, PredictiveCoding])
def test_saturation_is_the_share_of_small_slopes(
    name: str, most: float, local: type[LocalEnergy]
) -> None:
    network = build(local(), name)
    state = network.new_state(50)
    for u in state.u:
        u.normal_().mul_(6.0)
    metrics, rates = (
        measured_layers(network, state),
        [f(u) for f, u in zip(network.rate_phi, state.u, strict=True)],
    )
    for layer in range(1, network.n_layers):
        at = network.driven(layer, rates) if network.local.acts_on_drive else state.u[layer]
        small = (
            slope(getattr(torch.nn.functional, name, getattr(torch, name, None)), at) < 0.01 * most
        )
        share = float(small.double().mean())
        assert 0.01 < share < 0.99
        assert metrics[f"saturation/{layer}"] == pytest.approx(share, abs=1e-2)


@each_local
@pytest.mark.parametrize("estimator", [Backprop(), DualPropagation()])
def test_of_a_feed_forward_pass_its_own_states_are_told(name: str, estimator: Estimator) -> None:
    """Energies that add up, and the slopes of its activations where its drives are, by autograd."""
    network, at = network_of(name, "graph"), {}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(8.0)
    state, cost = network.new_state(4), SquaredError()
    state.clamp(0, torch.randn_like(state.u[0]))
    target = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0]]
    found = estimator.estimate(network, state, Newton(), cost, target, measure=True).metrics
    u, rates = {0: state.u[0]}, {0: network.rate_phi[0](state.u[0])}
    for layer in network.order:
        at[layer] = network.driven(layer, rates)
        u[layer] = network.local.forward(at[layer], network.phi[layer])
        rates[layer] = network.rate_phi[layer](u[layer])
    small = {
        layer: slope(network.phi[layer], d).abs() < 0.01 * MOST[name] for layer, d in at.items()
    }
    shares = {layer: float(small[layer].double().mean()) for layer in sorted(small)}
    assert any(0.0 < share < 1.0 for share in shares.values())
    assert by_layer(found, "saturation") == pytest.approx(shares)
    energy = float(network.energy([u[layer] for layer in sorted(u)]).mean().detach())
    of_input = network.local.input_term(u[0])
    rest = 0.0 if of_input is None else float(of_input.flatten(1).sum(1).mean())
    assert found["energy/free"] == pytest.approx(energy, abs=1e-12)
    assert sum(by_layer(found, "energy/layer").values()) + rest == pytest.approx(energy, abs=1e-12)


@pytest.mark.parametrize("local", [Hopfield, RateHopfield])
def test_a_state_at_a_bound_is_saturated(local: type[LocalEnergy]) -> None:
    network = build(local(), "hard_sigmoid")
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 0.01)  # drives between 0 and 1
    state = network.new_state(1)
    state.u[1] = torch.tensor([[0.0, 0.2, 0.5, 0.999, 1.0, 0.0]])
    assert saturated(network, state, 1).tolist() == [[True, False, False, False, True, True]]


def test_the_identity_is_never_saturated() -> None:
    network = build(Gaussian(), "identity")
    state = network.new_state(2)
    assert measured_layers(network, state)["saturation/2"] == 0.0


def test_of_an_energy_given_as_a_whole_no_layer_s_part_is_known() -> None:
    class Whole(eqprop.RestrictedHopfield):
        def energy(self, u: Any) -> Tensor:
            return super().energy(u)

    network = Whole([4, 6, 3], SquaredError(), 4, ["sigmoid"] * 3).double()
    estimate, _, _ = estimated(network, Euler(dt=0.1, n_relax=5))
    assert by_layer(estimate.metrics, "energy/layer") == {}
    assert by_layer(estimate.metrics, "saturation").keys() == {1, 2}
    found = by_layer(estimate.metrics, "relaxation/nudged_residual")
    assert sum(found.values()) == pytest.approx(estimate.metrics["relaxation/nudged_residual"])


@each_local
def test_measuring_changes_no_bit(name: str) -> None:
    network, solver = network_of(name, "images"), Euler(dt=0.05, n_relax=6)
    silent, state, _ = estimated(network, solver, measure=False)
    assert silent.metrics == {}
    kept, u = [g.clone() for g in silent.gradients], [layer.clone() for layer in state.u]
    measured, state, _ = estimated(network, solver)
    assert all(map(torch.equal, measured.gradients, kept))
    assert all(map(torch.equal, state.u, u))
