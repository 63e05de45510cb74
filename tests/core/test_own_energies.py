"""An energy of one's own, given as a whole or by its local terms, against the reference."""

from __future__ import annotations

import pytest
import torch
from networks import (
    assert_by_autograd,
    assert_close_lists,
    build,
    random_nudge,
    random_state,
    weight_gradient,
)
from reference import COSTS, ENERGIES

from eqprop import EnergyBasedModel, SquaredError
from eqprop.network import LocalEnergy, Network
from eqprop.relaxation import Anderson, Euler, Newton

each_kind = pytest.mark.parametrize("kind", sorted(ENERGIES))
each_cost = pytest.mark.parametrize("cost", sorted(COSTS))


class OwnGaussian(EnergyBasedModel):
    def energy(self, u):
        e = [u[i + 1] - self.W[i](self.phi[i](u[i])) for i in range(self.n_layers - 1)]
        return sum((layer**2).sum(1) for layer in e)


class OwnHopfield(EnergyBasedModel):
    def energy(self, u):
        r = [phi(layer) for phi, layer in zip(self.phi, u, strict=True)]
        drive = [self.W[i](r[i]) for i in range(self.n_layers - 1)]
        own = sum(0.5 * (layer**2).sum(1) for layer in u)
        return own - sum((r[i + 1] * d).sum(1) for i, d in enumerate(drive))


def own(kind, model, phi):
    twin = {"gaussian": OwnGaussian, "hopfield": OwnHopfield}[kind](
        model.dimensions, model.c_energy, model.batch_size, ["identity", *[phi] * 3]
    ).double()
    twin.load_state_dict(model.state_dict())
    for i in range(model.n_layers):
        twin.u[i] = model.u[i]
    twin.clamp_layer(0, model.u[0])
    return twin


@each_kind
@each_cost
@pytest.mark.parametrize("phi", ["tanh", "relu", "hard_sigmoid", torch.sin])
def test_an_energy_given_by_its_value_alone(kind, cost, phi, pair, state, targets):
    """Gradients, E, u_step and u_relax through autograd are those of the closed form."""
    model, ref = pair(kind, [4, 6, 5, 3], 3, phi, cost=cost, beta=0.5)
    twin, u = own(kind, model, phi), state(model)
    assert twin.by_autograd
    assert_close_lists(twin.gradient(twin.state)[1:], ref.state_gradient(u)[1:])
    twin.clamp_layer(2, u[2])
    found = twin.gradient(twin.state)
    assert found[0] is found[2] is None
    assert_close_lists(found[1::2], ref.state_gradient(u)[1::2])
    twin.release_layer(2)
    assert_close_lists(weight_gradient(twin, twin.state), ref.weight_gradient(u))
    y = targets(3, 3)
    twin.set_C_target(y)
    run = ref.relax(u, 20, 0.1, y=y, beta=0.5)
    assert twin.u_step(0.1, 1.0) == pytest.approx(run.residuals[0])
    twin.u_relax(0.1, 19, 0.0, 1.0)
    assert_close_lists(state(twin), run.u)
    torch.testing.assert_close(twin.E, ref.total(run.u, y, 0.5))
    assert_close_lists(twin.w_get_gradients(), ref.weight_gradient(run.u))


@each_kind
def test_a_connection_is_called_as_torch_linear_is(kind, pair):
    """``W[l](r)`` holds the bias: an energy of one's own that is written so trains it."""
    model, _ = pair(kind, [4, 6, 3], 3)
    r = torch.randn(3, 4, dtype=torch.float64)
    linear = torch.nn.functional.linear(r, model.W[0].weight, model.W[0].bias)
    torch.testing.assert_close(model.W[0](r), linear)


class Scaled(EnergyBasedModel):
    """Has a parameter beside W, and leaves b unused."""

    def __init__(self, *args):
        super().__init__(*args)
        self.scale = torch.nn.Parameter(torch.tensor(2.0))

    def energy(self, u):
        return self.scale * ((u[1] - u[0] @ self.W[0].weight.T) ** 2).sum(1)


def test_own_parameters_and_unused_ones():
    model = Scaled([4, 3], SquaredError(1.0), 2, ["identity"] * 2).double()
    state = random_state(model, 2)
    names = [name for name, _ in model.named_parameters()]
    found = dict(zip(names, weight_gradient(model, state), strict=True))
    e = state.u[1] - state.u[0] @ model.W[0].weight.detach().T
    torch.testing.assert_close(found["W.0.weight"], -2.0 * 2.0 * e.T @ state.u[0] / 2)
    torch.testing.assert_close(found["scale"], (e**2).sum(1).mean())
    assert not found["W.0.bias"].any()


# ---------------------------------------------------------------------- by local terms


class Cosh(LocalEnergy):
    """log cosh(u − d) + a price on the rate: known by its value alone."""

    scale = 1.5

    def value(self, u, r, d, phi):
        e = u - d
        return e + torch.nn.functional.softplus(-2 * e) + 0.3 * r.square()

    def input_term(self, u):
        return 0.1 * u.square() * u.square()


class Coupled(LocalEnergy):
    """All three of u, r and d in one product, and the layer's activation a second time."""

    def value(self, u, r, d, phi):
        return u.square() - r * d * torch.sigmoid(u) + 0.1 * phi(d).square() + 0.05 * d.square()


@pytest.mark.parametrize("local", [Cosh, Coupled])
@pytest.mark.parametrize("phi", ["tanh", "softplus", "leaky_relu", torch.sin])
@each_cost
@pytest.mark.parametrize("clamped", [(0,), (), (2,), (0, 3)])
def test_local_terms_known_by_their_value(local, phi, cost, clamped):
    network = build(local(), phi)
    for nudge in (None, random_nudge(network, cost)):
        assert_by_autograd(network, random_state(network, clamped=clamped), nudge)


@pytest.mark.parametrize("local", [Cosh, Coupled])
def test_solvers_of_local_terms_known_by_their_value(local):
    """Where they come to rest the energy's own gradient is zero, and it is the same place."""
    network = build(local(), "tanh")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)  # one minimum
    start, nudge, ends = random_state(network), random_nudge(network), []
    solvers = (
        Euler(0.2, n_relax=4000, tol=1e-11),
        Newton(n_relax=2000, tol=1e-11),
        Anderson(0.2, n_relax=2000, tol=1e-11),
    )
    for solver in solvers:
        state = random_state(network)
        state.clamp(0, start.u[0])
        state.u[:] = start.u
        solver.check(network)
        assert solver.relax(network, state, nudge, solver.n_relax).residual < 1e-11
        assert_by_autograd(network, state, nudge)
        ends.append(state.u)
    for end in ends[1:]:
        assert_close_lists(end, ends[0], rtol=0, atol=1e-9)


def test_a_network_class_of_ones_own_trains_by_its_energy():
    """A subclass of Network, its edges not a chain, that gives the energy as a whole."""

    class Mine(Network):
        def energy(self, u):
            return super().energy(u) + 0.3 * u[1].pow(4).sum(1)

    network = build(Cosh(), "tanh", network=Mine)
    for nudge in (None, random_nudge(network)):
        assert_by_autograd(network, random_state(network), nudge)
    with pytest.raises(ValueError, match="Mine"):
        Newton().check(network)
