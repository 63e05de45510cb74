"""Energies and their closed forms in layered networks, against the plain reference and autograd."""

from __future__ import annotations

import math

import pytest
import torch
from networks import assert_close_lists, assert_newton_terms, weight_gradient
from reference import COSTS, ENERGIES, PHI, SMOOTH

from eqprop import ConditionalGaussian, EnergyBasedModel, RestrictedHopfield, SquaredError

SHAPES = [([4, 7, 3], 5), ([4, 7, 3], 1), ([5, 8, 2, 6, 3], 4), ([3, 6, 9, 1], 1), ([4, 3], 3)]
each_kind = pytest.mark.parametrize("kind", sorted(ENERGIES))
each_phi = pytest.mark.parametrize("phi", sorted(PHI))
each_cost = pytest.mark.parametrize("cost", sorted(COSTS))
each_shape = pytest.mark.parametrize(("sizes", "batch"), SHAPES)


def gradient_at(model, u, clamped=(), nudge=None):
    """∂F/∂u at ``u``, in the model's own state."""
    state = model.state
    for i, layer in enumerate(u):
        state.release(i)
        state.u[i] = layer
        if i in clamped:
            state.clamp(i, layer)
    return [None if g is None else g.clone() for g in model.gradient(state, nudge)]


@each_kind
@each_phi
@each_shape
def test_closed_forms(kind, phi, sizes, batch, pair):
    """E, ∂E/∂u and ∂⟨E⟩/∂θ, differentiable and in the state's buffers."""
    model, ref = pair(kind, sizes, batch, phi)
    u = [2 * torch.randn(batch, n, dtype=torch.float64) for n in sizes]
    torch.testing.assert_close(model.energy(u), ref.energy(u))
    assert_close_lists(gradient_at(model, u), ref.state_gradient(u))
    torch.testing.assert_close(model.energies(model.state), ref.energy(u))
    assert_close_lists(weight_gradient(model, model.state), ref.weight_gradient(u))


@each_kind
@pytest.mark.parametrize("phi", ["relu", "leaky_relu"])
def test_closed_forms_at_a_kink(kind, phi, pair):
    model, ref = pair(kind, [3, 4, 4, 2], 3, phi)
    u = [torch.randint(-1, 3, (3, n)).double() for n in [3, 4, 4, 2]]
    assert_close_lists(gradient_at(model, u), ref.state_gradient(u))
    assert_close_lists(weight_gradient(model, model.state), ref.weight_gradient(u))


@each_kind
@pytest.mark.parametrize("beta", [None, 0.8, -0.8])
def test_at_a_kink_of_hard_sigmoid_the_gradient_is_of_a_side_that_goes_downhill(
    kind, beta, pair, targets
):
    """And 0 where no side does: against the slopes to both sides, cost and all."""
    sizes = [3, 4, 4, 2]
    model, ref = pair(kind, sizes, 9, "hard_sigmoid", beta=beta or 1.0)
    with torch.no_grad():
        for edge, W in zip(model.W, ref.W, strict=True):
            edge.weight.mul_(6.0)  # or nothing rests in the Gaussian energy
            W.mul_(6.0)
    u = [torch.randint(0, 2, (9, n)).double() for n in sizes]
    y = None if beta is None else targets(9, 2)
    model.set_C_target(y)
    found, tiny = gradient_at(model, u, (0,), model.nudge()), 1e-6
    kinds_seen = set()
    for i in (1, 2, 3):
        for j in range(sizes[i]):
            sides = []
            for shift in (-tiny, tiny):
                moved = [layer.clone() for layer in u]
                moved[i][:, j] += shift
                sides.append(ref.state_gradient(moved, y, beta or 1.0)[i][:, j])
            for got, left, right in zip(found[i][:, j], *sides, strict=True):
                if left <= 0 <= right:
                    kinds_seen.add("rest")
                    assert abs(got) < 1e-4
                elif left > 0 and right < 0:
                    assert min(abs(got - left), abs(got - right)) < 1e-4
                else:
                    kinds_seen.add("moves")
                    assert abs(got - (left if left > 0 else right)) < 1e-4
    assert kinds_seen == {"rest", "moves"}


@each_kind
@each_cost
@each_phi
@pytest.mark.parametrize(("sizes", "batch"), [SHAPES[2], SHAPES[4]])
@pytest.mark.parametrize("beta", [None, -0.4])
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
    assert_close_lists(steps[1:], expected[1:])


@each_kind
@pytest.mark.parametrize("clamped", [(0,), (2,), (0, 3), (1, 2, 3), (0, 1, 2)])
def test_a_gradient_for_what_is_free_and_nothing_moves(kind, clamped, pair, state):
    model, ref = pair(kind, [4, 6, 5, 3], 2, "sigmoid")
    u = state(model)
    found, expected = gradient_at(model, u, clamped), ref.state_gradient(u)
    assert [g is None for g in found] == [i in clamped for i in range(4)]
    wanted = [i for i in range(4) if i not in clamped]
    assert_close_lists([found[i] for i in wanted], [expected[i] for i in wanted])
    assert all(torch.equal(a, b) for a, b in zip(u, state(model), strict=True))


@pytest.mark.parametrize("phi", ["sigmoid", "tanh", "softplus", "relu", "leaky_relu", "identity"])
@each_cost
@each_kind
def test_what_a_newton_step_divides_is_autograd_s(pair, targets, kind, cost, phi):
    model, _ = pair(kind, [5, 6, 4, 3], 2, phi, cost=cost, beta=0.7)
    model.set_C_target(targets(2, 3))
    model.release_layer(0)
    for layer in range(model.n_layers):
        assert_newton_terms(model, model.state, layer, model.nudge())


@each_kind
def test_another_activation_in_each_layer(kind, pair, targets):
    model, ref = pair(kind, [4, 6, 5, 3], 2)
    names = ["tanh", "relu", "softplus", "sigmoid"]
    other = type(model)([4, 6, 5, 3], SquaredError(1.0), 2, names).double()
    other.load_state_dict(model.state_dict())
    ref.phi = [PHI[name] for name in names]
    u = [torch.randn(2, n, dtype=torch.float64) for n in [4, 6, 5, 3]]
    torch.testing.assert_close(other.energy(u), ref.energy(u))
    assert_close_lists(gradient_at(other, u), ref.state_gradient(u))
    assert_close_lists(weight_gradient(other, other.state), ref.weight_gradient(u))


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


@pytest.mark.estimators
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
    assert_close_lists([model.u[i] for i in range(len(sizes))], ref.feedforward(x))
    torch.testing.assert_close(model.E, torch.zeros_like(model.E), rtol=0, atol=1e-20)
    assert model.u_step(0.1, 1.0) < 1e-12


def test_fast_init_of_the_hopfield_is_refused(pair):
    model, _ = pair("hopfield", [4, 6, 3], 2)
    with pytest.raises(NotImplementedError):
        model.fast_init()


def test_the_base_class_has_no_energy():
    model = EnergyBasedModel([4, 6, 3], SquaredError(1.0), 2, ["tanh"] * 3)
    with pytest.raises(NotImplementedError):
        model.energy(model.u)
