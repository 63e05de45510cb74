"""Value, gradient and curvature of the costs, against the formulae and autograd in float64."""

from __future__ import annotations

import math

import pytest
import torch
from reference import COSTS

from eqprop import CEnergy, CrossEntropy, SquaredError
from eqprop.network import Cost, Nudge

CLASSES = {"squared_error": SquaredError, "cross_entropy": CrossEntropy}
each_cost = pytest.mark.parametrize("name", sorted(COSTS))
each_beta = pytest.mark.parametrize("beta", [1.0, 0.3, -0.7])


def make(name, beta, targets, batch=5, n=4):
    cost, y = CLASSES[name](beta), targets(batch, n)
    cost.set_target(y)
    return cost, y, torch.randn(batch, n, dtype=torch.float64)


def empty(u):
    return torch.full_like(u, math.nan)


def nudge(cost, y, beta):
    return Nudge(cost, y, torch.as_tensor(beta, dtype=y.dtype))


@each_cost
@each_beta
@pytest.mark.parametrize("batch", [1, 5])
def test_value(name, beta, batch, targets):
    cost, y, u = make(name, beta, targets, batch)
    expected = COSTS[name](u, y)
    assert cost.compute_energy(u).shape == (batch,)
    torch.testing.assert_close(cost.cost(u, y), expected)
    torch.testing.assert_close(cost.compute_energy(u), beta * expected)
    torch.testing.assert_close(nudge(cost, y, beta).energy(u), beta * expected)


@each_cost
@each_beta
@pytest.mark.parametrize("batch", [1, 5])
def test_gradient(name, beta, batch, targets):
    cost, y, u = make(name, 7.0, targets, batch)
    leaf = u.clone().requires_grad_()
    (expected,) = torch.autograd.grad(COSTS[name](leaf, y).sum(), leaf)
    torch.testing.assert_close(cost.gradient(u, y, empty(u)), expected)
    torch.testing.assert_close(nudge(cost, y, beta).gradient(u, empty(u)), beta * expected)


@each_cost
@each_beta
def test_curvature_is_the_diagonal_of_the_hessian(name, beta, targets):
    cost, y, u = make(name, 7.0, targets)
    found = cost.curvature(u, y, empty(u)), nudge(cost, y, beta).curvature(u, empty(u))
    for i in range(len(u)):
        hessian = torch.autograd.functional.hessian(
            lambda v, row=y[i : i + 1]: COSTS[name](v.view(1, -1), row).sum(), u[i]
        )
        for curvature, factor in zip(found, (1.0, beta), strict=True):
            torch.testing.assert_close(curvature[i], factor * hessian.diagonal())


@each_cost
def test_a_strength_for_each_sample(name, targets):
    cost, y, u = make(name, 7.0, targets)
    beta = torch.linspace(-1, 1, 5, dtype=torch.float64)
    mixed = Nudge(cost, y, beta)
    for i in range(5):
        alone = Nudge(cost, y[i : i + 1], beta[i])
        row = u[i : i + 1]
        torch.testing.assert_close(mixed.energy(u)[i : i + 1], alone.energy(row))
        for of in ("gradient", "curvature"):
            found = getattr(mixed, of)(u, empty(u))[i : i + 1]
            torch.testing.assert_close(found, getattr(alone, of)(row, empty(row)))


@pytest.mark.parametrize("beta", [0.6, torch.linspace(-1, 1, 5, dtype=torch.float64)])
def test_a_quadratic_cost_is_the_quadratic_that_it_gives(beta, targets):
    cost, y, u = make("squared_error", 7.0, targets)
    w, v = nudge(cost, y, beta).quadratic()
    found = (0.5 * w * u.square() - v * u).sum(1)
    rest = nudge(cost, y, beta).energy(u) - found
    at_zero = nudge(cost, y, beta).energy(torch.zeros_like(u))
    torch.testing.assert_close(rest, at_zero)


def test_a_cost_that_is_not_quadratic_says_so(targets):
    cost, y, _ = make("cross_entropy", 1.0, targets)
    with pytest.raises(ValueError, match="CrossEntropy"):
        nudge(cost, y, 1.0).quadratic()


@each_cost
def test_value_is_differentiable(name, targets):
    cost, y, u = make(name, 0.5, targets)
    leaf = u.clone().requires_grad_()
    (by_autograd,) = torch.autograd.grad(cost.compute_energy(leaf).sum(), leaf)
    torch.testing.assert_close(by_autograd, 0.5 * cost.gradient(u, y, empty(u)))


@each_cost
def test_no_target_no_cost(name, targets):
    cost, _, u = make(name, 1.0, targets)
    assert cost.target is not None
    cost.set_target(None)
    assert cost.target is None
    assert torch.equal(cost.compute_energy(u), torch.zeros(5, dtype=u.dtype))


@each_cost
def test_target_is_none_at_first(name):
    assert CLASSES[name](1.0).target is None


@each_cost
def test_beta_can_be_changed(name, targets):
    cost, y, u = make(name, 1.0, targets)
    value = cost.compute_energy(u).clone()
    cost.beta = -0.25
    torch.testing.assert_close(cost.compute_energy(u), -0.25 * value)
    assert torch.equal(cost.target, y)


@each_cost
def test_a_target_of_another_shape_is_refused(name, targets):
    cost, _, u = make(name, 1.0, targets)
    cost.set_target(targets(5, 3))
    with pytest.raises(ValueError, match="shape"):
        cost.compute_energy(u)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cross_entropy_of_huge_logits(dtype):
    cost = CrossEntropy(1.0)
    y = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=dtype)
    u = torch.tensor([[2e4, -2e4], [-2e4, 2e4]], dtype=dtype)
    torch.testing.assert_close(cost.cost(u, y), torch.tensor([0.0, 4e4], dtype=dtype))
    gradient = torch.tensor([[0.0, 0.0], [-1.0, 1.0]], dtype=dtype)
    torch.testing.assert_close(cost.gradient(u, y, empty(u)), gradient)
    assert torch.isfinite(cost.curvature(u, y, empty(u))).all()


@each_cost
def test_arguments_are_left_alone(name, targets):
    cost, y, u = make(name, 0.5, targets)
    u_before, y_before = u.clone(), y.clone()
    cost.compute_energy(u), cost.gradient(u, y, empty(u)), cost.curvature(u, y, empty(u))
    assert torch.equal(u, u_before)
    assert torch.equal(y, y_before)


def test_known_numbers():
    """Worked by hand: ½(1² + 2²) and −log(e/(e + 1))."""
    squared, entropy = SquaredError(2.0), CrossEntropy(2.0)
    y = torch.tensor([[1.0, 0.0]])
    squared.set_target(y)
    entropy.set_target(y)
    assert squared.compute_energy(torch.tensor([[2.0, 2.0]])).item() == pytest.approx(5.0)
    expected = 2 * (math.log(math.e + 1) - 1)
    assert entropy.compute_energy(torch.tensor([[1.0, 0.0]])).item() == pytest.approx(expected)


class Quartic(CEnergy):
    """A cost of one's own, given by its value only."""

    def cost(self, u_last, target):
        return ((u_last - target) ** 4).sum(1)


class Mixed(Cost):
    """One whose units do not stand apart, and that is linear in some."""

    def cost(self, u_last, target):
        return (u_last[:, 0] * u_last[:, 1]).square() + 3 * u_last[:, 2] * target[:, 0]


def test_a_cost_given_by_its_value_gets_its_gradient(targets):
    cost, u = Quartic(0.5), torch.randn(5, 4, dtype=torch.float64)
    y = targets(5, 4)
    cost.set_target(y)
    torch.testing.assert_close(cost.compute_energy(u), 0.5 * ((u - y) ** 4).sum(1))
    torch.testing.assert_close(cost.gradient(u, y, empty(u)), 4 * (u - y) ** 3)
    torch.testing.assert_close(cost.curvature(u, y, empty(u)), 12 * (u - y) ** 2)
    assert cost.quadratic(y) is None


def test_a_cost_that_couples_units(targets):
    cost, u, y = Mixed(), torch.randn(5, 4, dtype=torch.float64), targets(5, 4)
    a, b, zero = u[:, 0], u[:, 1], torch.zeros(5, dtype=u.dtype)
    gradient = torch.stack([2 * a * b * b, 2 * a * a * b, 3 * y[:, 0], zero], 1)
    torch.testing.assert_close(cost.gradient(u, y, empty(u)), gradient)
    curvature = torch.stack([2 * b * b, 2 * a * a, zero, zero], 1)
    torch.testing.assert_close(cost.curvature(u, y, empty(u)), curvature)


class TwofoldError(SquaredError):
    """Given by the published method alone, and by its parent's."""

    def compute_energy(self, u_last):
        return 2 * super().compute_energy(u_last)


class Slopes:
    """A mixin that gives another cost."""

    def cost(self, u_last, target):
        return 3 * u_last.sum(1)


class Priced:
    """A mixin that gives it by the published method."""

    def compute_energy(self, u_last):
        return self.beta * 3 * u_last.sum(1)


@pytest.mark.parametrize("mixin", [Slopes, Priced])
@pytest.mark.parametrize("base", [CEnergy, SquaredError, CrossEntropy])
def test_a_cost_that_a_mixin_gives(mixin, base, targets):
    cost, u, y = type("Mixed", (mixin, base), {})(0.5), torch.randn(5, 4).double(), targets(5, 4)
    cost.set_target(y)
    torch.testing.assert_close(cost.cost(u, y), 3 * u.sum(1))
    torch.testing.assert_close(cost.compute_energy(u), 1.5 * u.sum(1))
    torch.testing.assert_close(cost.gradient(u, y, empty(u)), torch.full_like(u, 3.0))
    assert cost.quadratic(y) is None


class Cubic(CEnergy):
    """Given by the published method alone."""

    def compute_energy(self, u_last):
        return self.beta * ((u_last - self.target) ** 3).sum(1)


@pytest.mark.parametrize(
    ("make_cost", "gradient"),
    [(TwofoldError, lambda u, y: 2 * (u - y)), (Cubic, lambda u, y: 3 * (u - y) ** 2)],
)
def test_a_cost_given_by_compute_energy_trains_by_it(make_cost, gradient, targets):
    cost, u, y = make_cost(0.3), torch.randn(5, 4, dtype=torch.float64), targets(5, 4)
    cost.set_target(targets(5, 4))
    kept = cost.beta, cost.target
    torch.testing.assert_close(cost.gradient(u, y, empty(u)), gradient(u, y))
    assert (cost.beta, cost.target) == kept
    cost.set_target(y)
    torch.testing.assert_close(cost.compute_energy(u), 0.3 * cost.cost(u, y))
    assert cost.quadratic(y) is None
    further = type("Further", (make_cost,), {})(0.3)
    torch.testing.assert_close(further.gradient(u, y, empty(u)), gradient(u, y))
    again = type("Again", (make_cost,), {"cost": lambda self, u, y: u.sum(1)})(0.3)
    again.set_target(y)
    torch.testing.assert_close(again.gradient(u, y, empty(u)), torch.ones_like(u))
