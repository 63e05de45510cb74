"""EP estimates: against the contrastive formula, and against implicit differentiation."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from reference import COSTS, ENERGIES, SMOOTH

from eqprop.estimator import CenteredEquilibriumPropagation, Contrast, EquilibriumPropagation
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


def estimated(estimator, model, solver, y, **how):
    return estimator.estimate(model, model.state, solver, model.c_energy, y, **how)


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
    if phi == "relu":  # whose slope at 0 is 0: a start from zeros is a hair above
        start = [x, *(layer + torch.finfo(layer.dtype).tiny for layer in start[1:])]
    expected, free = contrast(ref, start, y, beta, 15, 10, centered)
    estimator = CenteredEquilibriumPropagation if centered else EquilibriumPropagation
    solver = Euler(0.1, n_relax=15, n_nudged=10, init="zeros")
    estimate = estimated(estimator(beta), model, solver, y)
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
    estimate = estimated(estimator(0.5), model, Euler(0.1, n_relax=12), y)
    assert_lists_close(estimate.gradients, expected)
    torch.testing.assert_close(estimate.output, ref.feedforward(x)[-1])
    assert_lists_close(free, ref.feedforward(x))


@each_kind
def test_normal_init_is_the_generators_state(kind, pair, state, targets):
    model, ref = pair(kind, [5, 9, 4], 3, "tanh", beta=0.5)
    solver, y = Euler(0.1, n_relax=10, init="normal"), targets(3, 4)
    model.generator = torch.Generator().manual_seed(5)
    solver.initialise(model, model.state)
    expected, _ = contrast(ref, state(model), y, 0.5, 10, 10)
    model.generator = torch.Generator().manual_seed(5)
    estimate = estimated(EquilibriumPropagation(0.5), model, solver, y)
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
        estimate = estimated(ep, model, solver, y)
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
        estimate = estimated(ep, model, solver, y)
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
    output = estimated(ep, model, solver, targets(3, 4)).output
    kept = output.clone()
    model.clamp_layer(0, torch.randn(3, 5))
    if after == "estimate":
        estimated(ep, model, solver, targets(3, 4))
    else:
        model.u_relax(0.1, 3, 0.0, 1.0)
    assert torch.equal(output, kept)


@each_kind
@pytest.mark.parametrize("estimator", [EquilibriumPropagation, CenteredEquilibriumPropagation])
def test_metrics(kind, estimator, pair, targets):
    """The names of the record, from both phases; and measuring changes no number."""
    model, ref = pair(kind, [5, 9, 4], 3, "tanh", beta=0.5)
    solver, y, x = Euler(0.1, n_relax=10, init="zeros"), targets(3, 4), model.u[0].clone()
    measured = estimated(estimator(0.5), model, solver, y, measure=True)
    plain = estimated(estimator(0.5), model, solver, y)
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
    estimates = (estimated(estimator(beta), model, solver, y).gradients for beta in betas)
    return [norm([g - e for g, e in zip(found, exact, strict=True)]) for found in estimates]


@pytest.mark.estimators
@each_kind
@each_cost
@pytest.mark.parametrize(("phi", "sign"), [*((phi, 1) for phi in SMOOTH), ("tanh", -1)])
def test_one_sided_error_is_of_order_beta(kind, cost, phi, sign, limit):
    model, y, exact = limit(kind, cost, phi)
    betas = [sign * 0.01 / 2**k for k in range(3)]
    found = errors(EquilibriumPropagation, betas, model, y, exact)
    assert slopes(found) == pytest.approx([1.0] * 2, abs=0.1)
    assert found[-1] < 0.05 * norm(exact)


@pytest.mark.estimators
@each_kind
@each_cost
@pytest.mark.parametrize("phi", SMOOTH)
def test_centered_error_is_of_order_beta_squared(kind, cost, phi, limit):
    model, y, exact = limit(kind, cost, phi)
    betas = [0.04 / 2**k for k in range(3)]
    found = errors(CenteredEquilibriumPropagation, betas, model, y, exact)
    assert slopes(found) == pytest.approx([2.0] * 2, abs=0.1)
    assert found[-1] < 0.01 * norm(exact)


# ------------------------------------------------------------- what is asked of it otherwise


@each_kind
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_a_target_of_another_precision_is_the_same_target(kind, dtype, pair, targets):
    """torch.nn.functional.one_hot gives integers, in which a β of ½ would be 0."""
    model, _ = pair(kind, [5, 9, 4], 3, "tanh")
    solver, y = Euler(0.1, n_relax=10, init="zeros"), targets(3, 4)
    ep = CenteredEquilibriumPropagation(0.5)
    wanted = [g.clone() for g in estimated(ep, model, solver, y).gradients]
    assert_lists_close(estimated(ep, model, solver, y.to(dtype)).gradients, wanted)


@each_kind
def test_a_target_of_another_shape_is_refused(kind, pair, targets):
    model, _ = pair(kind, [5, 9, 4], 3, "tanh")
    with pytest.raises(ValueError, match="shape"):
        estimated(EquilibriumPropagation(0.5), model, Euler(0.1, n_relax=2), targets(3, 5))


@each_kind
def test_any_pairs_of_strength_and_factor(kind, pair, targets):
    """∇θ = Σ_k c_k ∂E/∂θ(u^{β_k}), spelled out; no pair but the free one, too."""
    phases = [(0.3, 2.0), (0.0, -0.7), (-0.2, 0.5), (0.6, -1.0)]
    model, ref = pair(kind, [5, 9, 6, 4], 3, "tanh")
    solver, y, x = Euler(0.1, n_relax=10, init="zeros"), targets(3, 4), model.u[0].clone()
    free = ref.relax(zeros_like_state(model, x), 10, 0.1).u
    wanted = [torch.zeros_like(p) for p in model.parameters()]
    for beta, c in phases:
        u = ref.relax(free, 10, 0.1, y=y, beta=beta).u if beta else free
        wanted = [a + c * g for a, g in zip(wanted, ref.weight_gradient(u), strict=True)]
    assert_lists_close(estimated(Contrast(phases), model, solver, y).gradients, wanted)
    alone = estimated(Contrast([(0.0, 1.5)]), model, solver, y).gradients
    assert_lists_close(alone, [1.5 * g for g in ref.weight_gradient(free)])


def test_nothing_to_sum_is_zero(pair, targets):
    """At the feed-forward equilibrium the free gradient is zero, whatever was summed before."""
    model, _ = pair("gaussian", [5, 9, 4], 3, "tanh")
    estimated(EquilibriumPropagation(0.5), model, Euler(0.1, n_relax=4), targets(3, 4))
    found = estimated(Contrast([(0.0, 1.0)]), model, Euler(0.1, n_relax=4), targets(3, 4))
    assert not any(g.any() for g in found.gradients)


@pytest.mark.parametrize("beta", [0.0, -0.5])
def test_a_strength_that_cannot_be_is_refused(beta):
    with pytest.raises(ValueError, match=r"estimator\.beta"):
        CenteredEquilibriumPropagation(beta)
    if beta == 0.0:
        with pytest.raises(ValueError, match=r"estimator\.beta"):
            EquilibriumPropagation(beta)


def test_what_is_overridden_is_not_captured():
    """A step captured on a GPU has to be the one that was looked at."""

    class Mine(EquilibriumPropagation):
        def estimate(self, *arguments, **keys):
            return super().estimate(*arguments, **keys)

    assert EquilibriumPropagation(0.5).capture_obstacle() is None
    assert "Mine" in Mine(0.5).capture_obstacle()
