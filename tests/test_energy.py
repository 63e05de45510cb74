"""Energies and their closed-form gradients against autograd, fixed points, custom energies."""

from __future__ import annotations

import math

import pytest
import torch
from reference import COSTS, ENERGIES, PHI, SMOOTH

from eqprop import ConditionalGaussian, EnergyBasedModel, RestrictedHopfield, SquaredError

SHAPES = [([4, 7, 3], 5), ([4, 7, 3], 1), ([5, 8, 2, 6, 3], 4), ([3, 6, 9, 1], 1), ([4, 3], 3)]
KINDS = sorted(ENERGIES)
each_kind = pytest.mark.parametrize("kind", KINDS)
each_phi = pytest.mark.parametrize("phi", sorted(PHI))
each_cost = pytest.mark.parametrize("cost", sorted(COSTS))
each_shape = pytest.mark.parametrize(("sizes", "batch"), SHAPES)


def gradient_of(model, u, skip=()):
    out = [None if i in skip else torch.full_like(layer, math.nan) for i, layer in enumerate(u)]
    model.state_gradient(u, out)
    return out


def assert_lists_close(actual, expected, **tolerance):
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, **tolerance)


@each_kind
@each_phi
@each_shape
def test_closed_forms(kind, phi, sizes, batch, pair):
    """E, ∂E/∂u and ∂⟨E⟩/∂θ of a state that is not the model's own."""
    model, ref = pair(kind, sizes, batch, phi)
    u = [2 * torch.randn(batch, n, dtype=torch.float64) for n in sizes]
    torch.testing.assert_close(model.energy(u), ref.energy(u))
    assert_lists_close(gradient_of(model, u), ref.state_gradient(u))
    assert_lists_close(model.weight_gradient(u), ref.weight_gradient(u))


@each_kind
@pytest.mark.parametrize("phi", ["relu", "leaky_relu", "hard_sigmoid"])
def test_closed_forms_at_a_kink(kind, phi, pair):
    model, ref = pair(kind, [3, 4, 4, 2], 3, phi)
    u = [torch.randint(-1, 3, (3, n)).double() for n in [3, 4, 4, 2]]
    assert_lists_close(gradient_of(model, u), ref.state_gradient(u))
    assert_lists_close(model.weight_gradient(u), ref.weight_gradient(u))


@each_kind
@each_cost
@each_phi
@each_shape
@pytest.mark.parametrize("beta", [None, 0.4, -0.4])
def test_step_follows_the_total_gradient(kind, cost, phi, sizes, batch, beta, pair, targets, state):
    """∂F/∂u with and without a target, read off one Euler step; and E, with the cost in it."""
    model, ref = pair(kind, sizes, batch, phi, cost=cost, beta=beta or 1.0)
    y = None if beta is None else targets(batch, sizes[-1])
    model.set_C_target(y)
    before = state(model)
    torch.testing.assert_close(model.E, ref.total(before, y, beta or 1.0))
    expected = ref.state_gradient(before, y, beta or 1.0)
    model.u_step(0.5, 2.0)
    steps = [(b - a) / 0.25 for b, a in zip(before, state(model), strict=True)]
    assert torch.equal(steps[0], torch.zeros_like(steps[0]))
    assert_lists_close(steps[1:], expected[1:])


@each_kind
@pytest.mark.parametrize("skip", [(0,), (2,), (0, 3), (1, 2, 3), (0, 1, 2)])
def test_only_the_wanted_gradients_are_computed(kind, skip, pair, state):
    model, ref = pair(kind, [4, 6, 5, 3], 2, "sigmoid")
    u = state(model)
    out, expected = gradient_of(model, u, skip), ref.state_gradient(u)
    wanted = [i for i in range(4) if i not in skip]
    assert_lists_close([out[i] for i in wanted], [expected[i] for i in wanted])
    assert all(torch.equal(a, b) for a, b in zip(u, state(model), strict=True))


@each_kind
def test_another_activation_in_each_layer(kind, pair, targets):
    model, ref = pair(kind, [4, 6, 5, 3], 2)
    names = ["tanh", "relu", "softplus", "sigmoid"]
    other = type(model)([4, 6, 5, 3], SquaredError(1.0), 2, names).double()
    other.load_state_dict(model.state_dict())
    ref.phi = [PHI[name] for name in names]
    u = [torch.randn(2, n, dtype=torch.float64) for n in [4, 6, 5, 3]]
    torch.testing.assert_close(other.energy(u), ref.energy(u))
    assert_lists_close(gradient_of(other, u), ref.state_gradient(u))
    assert_lists_close(other.weight_gradient(u), ref.weight_gradient(u))


@each_kind
def test_a_list_without_the_inputs_phi(kind):
    sizes = [4, 6, 3]
    model = {"gaussian": ConditionalGaussian, "hopfield": RestrictedHopfield}[kind]
    torch.manual_seed(1)
    whole = model(sizes, SquaredError(1.0), 2, ["identity", "tanh", "relu"])
    torch.manual_seed(1)
    short = model(sizes, SquaredError(1.0), 2, ["tanh", "relu"])
    u = [torch.randn(2, n) for n in sizes]
    assert torch.equal(whole.energy(u), short.energy(u))


@pytest.mark.parametrize("length", [1, 4])
def test_a_phi_list_of_another_length_is_refused(length):
    with pytest.raises(ValueError, match="activation"):
        ConditionalGaussian([4, 6, 3], SquaredError(1.0), 2, ["tanh"] * length)


def residual_system(ref, x, y, beta):
    """The Gaussian with φ = identity, one hidden layer, is ‖A v − c‖² in v = (u[1], u[2])."""
    (W0, W1), (b0, b1), root = ref.W, ref.b, math.sqrt(beta / 2)
    (n, m), eye = W1.shape, torch.eye(W1.shape[0] + W1.shape[1], dtype=x.dtype)
    second = eye[m:].clone()
    second[:, :m] = -W1
    A = torch.cat([eye[:m], second, root * eye[m:]])
    return A, torch.cat([x @ W0.T + b0, b1.expand(len(x), n), root * y], 1)


@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("beta", [0.2, 1.0])
def test_linear_gaussian_settles_at_the_least_squares_solution(batch, beta, pair, targets):
    model, ref = pair("gaussian", [4, 6, 3], batch, "identity", beta=beta)
    x, y = model.u[0].clone(), targets(batch, 3)
    model.set_C_target(y)
    A, c = residual_system(ref, x, y, beta)
    v = torch.linalg.lstsq(A, c.T).solution.T
    model.u_relax(0.2, 2000, 0.0, 1.0)
    torch.testing.assert_close(model.u[1], v[:, :6], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.u[2], v[:, 6:], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.E, ((v @ A.T - c) ** 2).sum(1))


@each_kind
@each_cost
@pytest.mark.parametrize("phi", SMOOTH)
@pytest.mark.parametrize("nudged", [False, True])
def test_energy_falls_along_a_relaxation(kind, cost, phi, nudged, pair, targets):
    model, _ = pair(kind, [5, 8, 6, 3], 4, phi, cost=cost, beta=0.5)
    model.set_C_target(targets(4, 3) if nudged else None)
    energies = [model.E.clone()]
    for _ in range(60):
        model.u_step(0.02, 1.0)
        energies.append(model.E.clone())
    falls = torch.stack(energies).diff(dim=0)
    assert (falls < 0).all()


@each_phi
@pytest.mark.parametrize(("sizes", "batch"), SHAPES)
def test_fast_init_is_the_gaussians_minimum(phi, sizes, batch, pair):
    model, ref = pair("gaussian", sizes, batch, phi)
    x = model.u[0].clone()
    model.fast_init()
    assert_lists_close([model.u[i] for i in range(len(sizes))], ref.feedforward(x))
    torch.testing.assert_close(model.E, torch.zeros_like(model.E), rtol=0, atol=1e-20)
    assert model.u_step(0.1, 1.0) < 1e-12


def test_fast_init_of_the_hopfield_is_refused(pair):
    model, _ = pair("hopfield", [4, 6, 3], 2)
    with pytest.raises(NotImplementedError):
        model.fast_init()


def test_the_base_class_has_no_energy():
    with pytest.raises((NotImplementedError, TypeError)):
        EnergyBasedModel([4, 6, 3], SquaredError(1.0), 2, ["tanh"] * 3).energy([])


# ------------------------------------------------------------------ an energy of one's own


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
    assert_lists_close(gradient_of(twin, u), ref.state_gradient(u))
    assert_lists_close(gradient_of(twin, u, skip=(0, 2))[1::2], ref.state_gradient(u)[1::2])
    assert_lists_close(twin.weight_gradient(u), ref.weight_gradient(u))
    y = targets(3, 3)
    twin.set_C_target(y)
    run = ref.relax(u, 20, 0.1, y=y, beta=0.5)
    assert twin.u_step(0.1, 1.0) == pytest.approx(run.residuals[0])
    twin.u_relax(0.1, 19, 0.0, 1.0)
    assert_lists_close(state(twin), run.u)
    torch.testing.assert_close(twin.E, ref.total(run.u, y, 0.5))
    assert_lists_close(twin.w_get_gradients(), ref.weight_gradient(run.u))


class Scaled(EnergyBasedModel):
    """Has a parameter beside W, and leaves b unused."""

    def __init__(self, *args):
        super().__init__(*args)
        self.scale = torch.nn.Parameter(torch.tensor(2.0))

    def energy(self, u):
        return self.scale * ((u[1] - u[0] @ self.W[0].weight.T) ** 2).sum(1)


def test_own_parameters_and_unused_ones():
    model = Scaled([4, 3], SquaredError(1.0), 2, ["identity"] * 2).double()
    u = [torch.randn(2, n, dtype=torch.float64) for n in [4, 3]]
    names = [name for name, _ in model.named_parameters()]
    found = dict(zip(names, model.weight_gradient(u), strict=True))
    e = u[1] - u[0] @ model.W[0].weight.detach().T
    torch.testing.assert_close(found["W.0.weight"], -2.0 * 2.0 * e.T @ u[0] / 2)
    torch.testing.assert_close(found["scale"], (e**2).sum(1).mean())
    assert not found["W.0.bias"].any()
