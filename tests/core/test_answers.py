"""What a network that no run has recorded answers; and that nothing moves."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import cases
import pytest
import torch
from torch import Tensor

import eqprop
from eqprop.data import one_hot


class Dear(eqprop.EnergyBasedModel):
    """A Hopfield energy, given as a whole, with a price on activity."""

    def energy(self, u: Sequence[Tensor]) -> Tensor:
        r = [phi(layer) for phi, layer in zip(self.phi, u, strict=True)]
        own = sum((0.5 * v.square() + 0.1 * s.abs()).sum(1) for v, s in zip(u, r, strict=True))
        return own - sum((W(a) * b).sum(1) for W, a, b in zip(self.W, r[:-1], r[1:], strict=True))


@pytest.mark.parametrize("net", cases.NETS)
@pytest.mark.parametrize("kind", cases.KINDS)
def test_a_network_of_no_run_is_relaxed_as_is_recommended(kind: str, net: str) -> None:
    network = cases.network(kind, net, "sigmoid")
    x, _ = cases.batch(network)
    state = network.new_state(len(x), torch.Generator().manual_seed(0))
    state.clamp(0, x)
    eqprop.recommended_solver(network).free_phase(network, state)
    assert torch.equal(network(x), state.u[-1])
    assert torch.equal(network.predict(x), state.u[-1].argmax(1))
    torch.testing.assert_close(network(x.flatten(1)), state.u[-1])


def test_another_solver() -> None:
    network = cases.network("hopfield", phi="sigmoid")
    x, _ = cases.batch(network)
    near = network(x)
    network.predictor = eqprop.Predictor(eqprop.Newton(n_relax=1))
    assert (network(x) - near).abs().max() > 1e-6
    network.predictor = eqprop.Predictor(eqprop.Euler(dt=0.2, n_relax=500))
    torch.testing.assert_close(network(x), near, atol=1e-3, rtol=0)


@pytest.mark.parametrize("make", [eqprop.ConditionalGaussian, eqprop.RestrictedHopfield, Dear])
def test_nothing_moves(make: Any) -> None:
    """Not the model's own state, nor weights, nor the generators that a training draws from."""
    model = make([6, 5, 3], eqprop.SquaredError(), 4, ["sigmoid"] * 2)
    model.reset_state()
    layers, weights = [u.clone() for u in model.u], copy.deepcopy(model.state_dict())
    x, before = torch.rand(7, 6), torch.get_rng_state()
    kept, found = x.clone(), model(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model(x), found)
    assert torch.equal(x, kept)
    assert all(map(torch.equal, model.u, layers))
    assert model.batch_size == 4
    assert all(torch.equal(t, weights[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not found.requires_grad


def test_a_training_learns_what_is_predicted() -> None:
    """The loop of one's own that README shows, on data that can be told apart."""
    model = eqprop.RestrictedHopfield([6, 20, 3], eqprop.SquaredError(), 30, ["sigmoid"] * 2)
    y = torch.arange(30) % 3
    x = 2 * torch.eye(3, 6)[y] + 0.3 * torch.randn(30, 6)
    optimizer, state = torch.optim.Adam(model.parameters(), lr=0.02), model.new_state(30)
    state.clamp(0, x)
    estimator, target = eqprop.EquilibriumPropagation(0.5), one_hot(y, 3, x.dtype)
    for _ in range(60):
        found = estimator.estimate(model, state, eqprop.Newton(), model.c_energy, target)
        for parameter, gradient in zip(model.parameters(), found.gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
    assert (model.predict(x) == y).float().mean() > 0.9


def test_pixels_of_integers_are_refused() -> None:
    """Nobody has said what they become."""
    model = cases.network("gaussian")
    with pytest.raises(ValueError, match=r"torch\.uint8"):
        model(torch.zeros(2, 4, dtype=torch.uint8))
