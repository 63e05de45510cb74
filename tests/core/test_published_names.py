"""The names users know, used as they use them, in float32, against the plain float64 reference."""

from __future__ import annotations

import inspect

import pytest
import torch
from reference import Reference

import eqprop
from eqprop import ConditionalGaussian, CrossEntropy, RestrictedHopfield, SquaredError

MODELS = {"gaussian": ConditionalGaussian, "hopfield": RestrictedHopfield}
COSTS = {"squared_error": SquaredError, "cross_entropy": CrossEntropy}
SIZES, BATCH = [11, 17, 9, 5], 6
FUNCTIONS = {"load", "recommended_solver"}
each_kind = pytest.mark.parametrize("kind", sorted(MODELS))
each_cost = pytest.mark.parametrize("cost", sorted(COSTS))
each_phi = pytest.mark.parametrize("phi", [torch.sigmoid, torch.tanh, torch.relu])


def same(u):
    return u


def build(kind="gaussian", cost="squared_error", phi=torch.tanh, beta=0.5):
    phis = [same, *[phi] * (len(SIZES) - 1)]
    model = MODELS[kind](SIZES, COSTS[cost](beta), BATCH, phis)
    model.reset_state()
    model.clamp_layer(0, torch.randn(BATCH, SIZES[0]))
    return model, reference(model, kind, cost, phis)


def reference(model, kind, cost, phis):
    W = [c.weight.detach().double() for c in model.W]
    b = [c.bias.detach().double() for c in model.W]
    return Reference(kind, W, b, phis, cost)


def state(model):
    return [model.u[i].detach().double().clone() for i in range(model.n_layers)]


def assert_near(actual, expected, relative=1e-4):
    """A relative 1e-4 of the tensor as a whole."""
    actual, expected = torch.as_tensor(actual).detach().double(), torch.as_tensor(expected)
    assert actual.shape == expected.shape
    assert (actual - expected).norm() <= relative * expected.norm()


def test_everything_imports_from_the_package():
    for name in eqprop.__all__:
        assert inspect.isclass(getattr(eqprop, name)) == (name not in FUNCTIONS)
    assert all(callable(getattr(eqprop, name)) for name in FUNCTIONS)
    parts = (eqprop.relaxation, eqprop.Solver), (eqprop.estimator, eqprop.Estimator)
    for package, seam in parts:
        for name in package.__all__:
            found = getattr(package, name)
            if inspect.isclass(found) and issubclass(found, seam):
                assert getattr(eqprop, name) is found
    with pytest.raises(AttributeError, match="Neuton"):
        eqprop.Neuton  # noqa: B018
    assert all(issubclass(m, eqprop.EnergyBasedModel) for m in MODELS.values())
    assert all(issubclass(c, eqprop.CEnergy) for c in COSTS.values())


@each_kind
def test_attributes(kind):
    model, _ = build(kind)
    assert model.batch_size == BATCH
    assert list(model.dimensions) == SIZES
    assert model.n_layers == len(SIZES) == len(model.phi)
    assert isinstance(model.c_energy, SquaredError)
    assert bool(model.clamp_du[0])
    assert not any(bool(clamped) for clamped in list(model.clamp_du)[1:])
    assert model.E.shape == (BATCH,)
    for i, connection in enumerate(model.W):
        assert connection.weight.shape == (SIZES[i + 1], SIZES[i])
        assert connection.bias.shape == (SIZES[i + 1],)
    assert [tuple(model.u[i].shape) for i in range(4)] == [(BATCH, n) for n in SIZES]


@each_kind
def test_weights_start_as_torch_linear_does(kind):
    torch.manual_seed(3)
    model = MODELS[kind]([400, 300, 10], SquaredError(1.0), 2, [same] * 3)
    for connection, fan_in in zip(model.W, [400, 300], strict=True):
        bound = fan_in**-0.5
        for parameter in (connection.weight, connection.bias):
            assert 0.8 * bound < parameter.abs().max() <= bound
        assert connection.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@each_kind
@each_cost
@each_phi
def test_a_whole_update(kind, cost, phi):
    """Free phase, nudged phase, contrast, SGD: state, energies, gradients and weights."""
    model, ref = build(kind, cost, phi)
    y = torch.nn.functional.one_hot(torch.randint(SIZES[-1], (BATCH,)), SIZES[-1])
    start = state(model)
    free = ref.relax(start, 25, 0.1)
    nudged = ref.relax(free.u, 40, 0.1, y=y.double(), beta=0.5)

    change = model.u_relax(dt=0.1, n_relax=25, tol=0, tau=1)
    assert_near(float(change), (ref.energy(free.u) - ref.energy(start)).sum())
    for layer, expected in zip(state(model), free.u, strict=True):
        assert_near(layer, expected)
    assert_near(model.E, ref.energy(free.u))
    free_gradient = model.w_get_gradients()
    for actual, expected in zip(free_gradient, ref.weight_gradient(free.u), strict=True):
        assert_near(actual, expected)

    model.set_C_target(y.float())
    model.u_relax(0.1, 40, 0, 1)
    for layer, expected in zip(state(model), nudged.u, strict=True):
        assert_near(layer, expected)
    assert_near(model.E, ref.total(nudged.u, y.double(), 0.5))
    nudged_gradient = model.w_get_gradients()
    expected = ref.contrast(nudged.u, free.u, 0.5)
    weights = [p.detach().double().clone() for p in model.parameters()]
    model.w_optimize(free_gradient, nudged_gradient, torch.optim.SGD(model.parameters(), lr=0.2))
    for after, before, g in zip(model.parameters(), weights, expected, strict=True):
        assert_near(after, before - 0.2 * g)
        assert_near(after.detach() - before, -0.2 * g, 2e-3)


@each_kind
def test_gradients_are_a_list_that_a_later_phase_leaves_alone(kind):
    model, _ = build(kind)
    first = model.w_get_gradients()
    assert isinstance(first, list)
    assert [g.shape for g in first] == [p.shape for p in model.parameters()]
    kept = [g.clone() for g in first]
    model.u_relax(0.1, 5, 0, 1)
    model.w_get_gradients()
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))


@each_kind
def test_gradients_of_a_loss_of_ones_own(kind):
    model, _ = build(kind)
    own = model.w_get_gradients(3 * model.energy([model.u[i] for i in range(4)]).mean())
    for g, expected in zip(own, model.w_get_gradients(), strict=True):
        assert_near(g, 3 * expected.double())


@each_kind
def test_u_step_is_the_residual_of_the_gradient_it_used(kind):
    model, ref = build(kind)
    before = state(model)
    run = ref.relax(before, 1, 0.3, tau=2.0)
    residual = model.u_step(0.3, 2.0)
    assert isinstance(residual, float)
    assert residual == pytest.approx(run.residuals[0], rel=1e-5)
    for layer, expected in zip(state(model), run.u, strict=True):
        assert_near(layer, expected, 1e-6)


@each_kind
@pytest.mark.parametrize("tol", [1.0, 0.3, 0.05])
def test_early_stopping(kind, tol):
    """The relaxation ends with the step whose own residual is below tol."""
    model, ref = build(kind)
    run = ref.relax(state(model), 400, 0.1, tol=tol)
    assert 1 < len(run.residuals) < 400
    model.u_relax(0.1, 400, tol, 1.0)
    for layer, expected in zip(state(model), run.u, strict=True):
        assert_near(layer, expected, 1e-5)  # one step more or less is some 1e-3


@each_kind
def test_energy_follows_what_changes(kind):
    """State, target, β and weights, each changed from outside."""
    model, ref = build(kind)
    y = torch.eye(SIZES[-1])[torch.randint(SIZES[-1], (BATCH,))]
    model.u[1] = torch.randn(BATCH, SIZES[1])
    assert_near(model.E, ref.energy(state(model)))
    model.u[2].mul_(1.5)
    assert_near(model.E, ref.energy(state(model)))
    model.set_C_target(y)
    assert_near(model.E, ref.total(state(model), y.double(), 0.5))
    model.c_energy.beta = -2.0
    assert_near(model.E, ref.total(state(model), y.double(), -2.0))
    model.c_energy.set_target(None)
    assert_near(model.E, ref.energy(state(model)))
    model.update_energy()
    assert_near(model.E, ref.energy(state(model)))
    model.reset_state()
    assert_near(model.E, ref.energy(state(model)))
    model.clamp_layer(0, torch.randn(BATCH, SIZES[0]))
    assert_near(model.E, ref.energy(state(model)))


def with_optimizer(optimizer, **options):
    def change(model):
        chosen = optimizer(model.parameters(), lr=0.1, **options)
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        chosen.step()

    return change


def by_data(model):
    for p in model.parameters():
        p.data.copy_(torch.randn_like(p))


def by_new_data(model):
    for p in model.parameters():
        p.data = torch.randn_like(p)


def by_state_dict(model):
    model.load_state_dict({k: torch.randn_like(v) for k, v in model.state_dict().items()})


CHANGES = {
    "sgd": with_optimizer(torch.optim.SGD),
    "adam_fused": with_optimizer(torch.optim.Adam, fused=True),
    "adam_foreach": with_optimizer(torch.optim.Adam, foreach=True),
    "data": by_data,
    "new_data": by_new_data,
    "state_dict": by_state_dict,
}


@each_kind
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_nothing_is_stale_after_the_weights_changed(kind, change):
    """Energy and dynamics see new weights though layer 0 is still clamped to the same input."""
    model, _ = build(kind)
    model.u_relax(0.1, 3, 0, 1)
    change(model)
    ref = reference(model, kind, "squared_error", [same, *[torch.tanh] * 3])
    before = state(model)
    with torch.no_grad():
        assert_near(model.E, ref.energy(before), 1e-5)
    run = ref.relax(before, 1, 0.1)
    assert model.u_step(0.1, 1.0) == pytest.approx(run.residuals[0], rel=1e-4)
    for actual, g in zip(model.w_get_gradients(), ref.weight_gradient(state(model)), strict=True):
        assert_near(actual, g)


def test_zero_grad():
    model, _ = build()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model.zero_grad()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_reset_state_is_standard_normal():
    model = RestrictedHopfield([3, 400, 10], SquaredError(1.0), 500, [same] * 3)
    model.reset_state()
    assert model.u[1].mean().item() == pytest.approx(0, abs=0.01)
    assert model.u[1].std().item() == pytest.approx(1, abs=0.01)
