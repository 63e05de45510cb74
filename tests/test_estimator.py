"""EP estimates: against the contrastive formula, and against implicit differentiation."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from reference import COSTS, ENERGIES, SMOOTH

from eqprop.estimator import CenteredEquilibriumPropagation, EquilibriumPropagation
from eqprop.relaxation import Euler

each_kind = pytest.mark.parametrize("kind", sorted(ENERGIES))
each_cost = pytest.mark.parametrize("cost", sorted(COSTS))
METRICS = {
    "energy/free",
    "energy/nudged",
    "energy/difference",
    "cost/free",
    "cost/nudged",
    "relaxation/free_steps",
    "relaxation/free_residual",
    "relaxation/nudged_steps",
    "relaxation/nudged_residual",
}


def zeros_like_state(model, x):
    return [x, *(torch.zeros_like(model.u[i]) for i in range(1, model.n_layers))]


def contrast(ref, start, y, beta, n_relax, n_nudged, centered=False):
    """(gradients, free state) of Euler phases with dt 0.1 from `start`."""
    free = ref.relax(start, n_relax, 0.1).u
    plus = ref.relax(free, n_nudged, 0.1, y=y, beta=beta).u
    if not centered:
        return ref.contrast(plus, free, beta), free
    minus = ref.relax(free, n_nudged, 0.1, y=y, beta=-beta).u
    return ref.contrast(plus, minus, 2 * beta), free


def assert_lists_close(actual, expected, **tolerance):
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, **tolerance)


@each_kind
@each_cost
@pytest.mark.parametrize("phi", ["sigmoid", "relu"])
@pytest.mark.parametrize(
    ("sizes", "batch"), [([5, 9, 4], 3), ([5, 8, 6, 7, 4], 4), ([6, 5, 3], 1), ([4, 3], 5)]
)
@pytest.mark.parametrize("beta", [0.5, -0.3, "centered"])
def test_contrastive_formula(kind, cost, phi, sizes, batch, beta, pair, targets):
    """The estimator's own β decides, not what the cost was made with."""
    model, ref = pair(kind, sizes, batch, phi, cost=cost, beta=7.0)
    x, y, centered = model.u[0].clone(), targets(batch, sizes[-1]), beta == "centered"
    start, beta = zeros_like_state(model, x), 0.4 if centered else beta
    expected, free = contrast(ref, start, y, beta, 15, 10, centered)
    estimator = CenteredEquilibriumPropagation if centered else EquilibriumPropagation
    solver = Euler(0.1, n_relax=15, n_nudged=10, init="zeros")
    estimate = estimator(beta).estimate(model, solver, y)
    assert_lists_close(estimate.gradients, expected)
    torch.testing.assert_close(estimate.output, free[-1])
    assert [g.shape for g in estimate.gradients] == [p.shape for p in model.parameters()]
    assert torch.equal(model.u[0], x)


@pytest.mark.parametrize("estimator", [EquilibriumPropagation, CenteredEquilibriumPropagation])
def test_the_gaussian_starts_from_its_feedforward_pass(estimator, pair, targets):
    model, ref = pair("gaussian", [5, 8, 6, 4], 4, "tanh", beta=0.5)
    x, y = model.u[0].clone(), targets(4, 4)
    centered = estimator is CenteredEquilibriumPropagation
    expected, free = contrast(ref, ref.feedforward(x), y, 0.5, 0, 12, centered)
    estimate = estimator(0.5).estimate(model, Euler(0.1, n_relax=12), y)
    assert_lists_close(estimate.gradients, expected)
    torch.testing.assert_close(estimate.output, ref.feedforward(x)[-1])
    assert_lists_close(free, ref.feedforward(x))


@each_kind
def test_normal_init_is_the_generators_state(kind, pair, state, targets):
    model, ref = pair(kind, [5, 9, 4], 3, "tanh", beta=0.5)
    solver, y = Euler(0.1, n_relax=10, init="normal"), targets(3, 4)
    model.generator = torch.Generator().manual_seed(5)
    solver.initialise(model)
    expected, _ = contrast(ref, state(model), y, 0.5, 10, 10)
    model.generator = torch.Generator().manual_seed(5)
    estimate = EquilibriumPropagation(0.5).estimate(model, solver, y)
    assert_lists_close(estimate.gradients, expected)


@each_kind
@pytest.mark.parametrize("estimator", [EquilibriumPropagation, CenteredEquilibriumPropagation])
def test_batches_of_changing_size(kind, estimator, pair, targets):
    """A smaller last batch, then whole ones again, with one estimator; smaller grows larger too."""
    model, ref = pair(kind, [5, 8, 6, 4], 6, "sigmoid", beta=0.5)
    solver, ep = Euler(0.1, n_relax=10, init="zeros"), estimator(0.5)
    centered = estimator is CenteredEquilibriumPropagation
    for batch in (6, 2, 6, 1, 9):
        x, y = torch.randn(batch, 5, dtype=torch.float64), targets(batch, 4)
        model.resize(batch)
        model.clamp_layer(0, x)
        assert model.batch_size == batch
        estimate = ep.estimate(model, solver, y)
        expected, free = contrast(ref, zeros_like_state(model, x), y, 0.5, 10, 10, centered)
        assert_lists_close(estimate.gradients, expected)
        torch.testing.assert_close(estimate.output, free[-1])


@each_kind
def test_training_steps_in_sequence(kind, pair, targets):
    """Nothing of one batch, or of the old weights, leaks into the next: the same input twice."""
    model, ref = pair(kind, [5, 8, 6, 4], 4, "tanh", beta=0.5)
    solver, ep = Euler(0.1, n_relax=10, init="zeros"), EquilibriumPropagation(0.5)
    optimizer, x, y = torch.optim.SGD(model.parameters(), lr=0.3), model.u[0].clone(), targets(4, 4)
    for _ in range(4):
        expected, _ = contrast(ref, zeros_like_state(model, x), y, 0.5, 10, 10)
        estimate = ep.estimate(model, solver, y)
        assert_lists_close(estimate.gradients, expected)
        for p, g in zip(model.parameters(), estimate.gradients, strict=True):
            p.grad = g
        optimizer.step()
        ref.W = [w - 0.3 * g for w, g in zip(ref.W, expected[::2], strict=True)]
        ref.b = [b - 0.3 * g for b, g in zip(ref.b, expected[1::2], strict=True)]


@each_kind
@pytest.mark.parametrize("after", ["relaxation", "estimate"])
def test_output_is_a_copy(kind, after, pair, targets):
    """A caller may collect the outputs of an epoch."""
    model, _ = pair(kind, [5, 9, 4], 3, "tanh", beta=0.5)
    solver, ep = Euler(0.1, n_relax=10), EquilibriumPropagation(0.5)
    output = ep.estimate(model, solver, targets(3, 4)).output
    kept = output.clone()
    model.clamp_layer(0, torch.randn(3, 5))
    if after == "estimate":
        ep.estimate(model, solver, targets(3, 4))
    else:
        model.u_relax(0.1, 3, 0.0, 1.0)
    assert torch.equal(output, kept)


@each_kind
@pytest.mark.parametrize("estimator", [EquilibriumPropagation, CenteredEquilibriumPropagation])
def test_metrics(kind, estimator, pair, targets):
    """The names of the record, from both phases; and measuring changes no number."""
    model, ref = pair(kind, [5, 9, 4], 3, "tanh", beta=0.5)
    solver, y, x = Euler(0.1, n_relax=10, init="zeros"), targets(3, 4), model.u[0].clone()
    measured = estimator(0.5).estimate(model, solver, y, measure=True)
    plain = estimator(0.5).estimate(model, solver, y)
    assert_lists_close(measured.gradients, plain.gradients, rtol=0, atol=0)
    assert set(measured.metrics) >= METRICS
    assert plain.metrics == {}
    assert all(math.isfinite(v) for v in measured.metrics.values())
    free = ref.relax(zeros_like_state(model, x), 10, 0.1).u
    nudged = ref.relax(free, 10, 0.1, y=y, beta=0.5).u
    for phase, u in (("free", free), ("nudged", nudged)):
        energy, cost = ref.energy(u).mean(), COSTS["squared_error"](u[-1], y).mean()
        assert measured.metrics[f"energy/{phase}"] == pytest.approx(float(energy))
        assert measured.metrics[f"cost/{phase}"] == pytest.approx(float(cost))
        assert measured.metrics[f"relaxation/{phase}_steps"] == 10


# ------------------------------------------------------------- the limit of small nudging


def norm(gradients):
    return float(torch.cat([g.flatten() for g in gradients]).norm())


def slopes(errors):
    return [math.log2(a / b) for a, b in pairwise(errors)]


@pytest.fixture
def limit(pair, targets):
    """make(kind, cost, phi) -> (model, y, gradient of the cost at the free equilibrium)."""

    def make(kind, cost, phi):
        model, ref = pair(kind, [4, 6, 5, 3], 3, phi, cost=cost)
        with torch.no_grad():  # small weights: the Hopfield energy of a linear φ has a minimum
            for connection, W in zip(model.W, ref.W, strict=True):
                connection.weight.mul_(0.5)
                W.mul_(0.5)
        x, y = model.u[0].clone(), targets(3, 3)
        start = ref.relax(zeros_like_state(model, x), 200, 0.1).u
        exact = ref.implicit_gradient(ref.free_equilibrium(start), y)
        if kind == "gaussian":
            assert_lists_close(exact, ref.backprop_gradient(x, y))
        return model, y, exact

    return make


def errors(estimator, betas, model, y, exact):
    solver = Euler(0.3, n_relax=2000, tol=1e-12, init="zeros")
    estimates = (estimator(beta).estimate(model, solver, y).gradients for beta in betas)
    return [norm([g - e for g, e in zip(found, exact, strict=True)]) for found in estimates]


@each_kind
@each_cost
@pytest.mark.parametrize("phi", SMOOTH)
@pytest.mark.parametrize("sign", [1, -1])
def test_one_sided_error_is_of_order_beta(kind, cost, phi, sign, limit):
    model, y, exact = limit(kind, cost, phi)
    betas = [sign * 0.01 / 2**k for k in range(3)]
    found = errors(EquilibriumPropagation, betas, model, y, exact)
    assert slopes(found) == pytest.approx([1.0] * 2, abs=0.1)
    assert found[-1] < 0.05 * norm(exact)


@each_kind
@each_cost
@pytest.mark.parametrize("phi", SMOOTH)
def test_centered_error_is_of_order_beta_squared(kind, cost, phi, limit):
    model, y, exact = limit(kind, cost, phi)
    betas = [0.04 / 2**k for k in range(3)]
    found = errors(CenteredEquilibriumPropagation, betas, model, y, exact)
    assert slopes(found) == pytest.approx([2.0] * 2, abs=0.1)
    assert found[-1] < 0.01 * norm(exact)
