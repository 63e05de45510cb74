"""Value, gradient and curvature of the costs, against the formulae and autograd in float64."""

from __future__ import annotations

import math

import pytest
import torch
from reference import COSTS

from eqprop import CEnergy, CrossEntropy, SquaredError

CLASSES = {"squared_error": SquaredError, "cross_entropy": CrossEntropy}
each_cost = pytest.mark.parametrize("name", sorted(COSTS))
each_beta = pytest.mark.parametrize("beta", [1.0, 0.3, -0.7])


def make(name, beta, targets, batch=5, n=4):
    cost, y = CLASSES[name](beta), targets(batch, n)
    cost.set_target(y)
    return cost, y, torch.randn(batch, n, dtype=torch.float64)


@each_cost
@each_beta
@pytest.mark.parametrize("batch", [1, 5])
def test_value(name, beta, batch, targets):
    cost, y, u = make(name, beta, targets, batch)
    assert cost.compute_energy(u).shape == (batch,)
    torch.testing.assert_close(cost.compute_energy(u), beta * COSTS[name](u, y))


@each_cost
@each_beta
@pytest.mark.parametrize("batch", [1, 5])
def test_gradient(name, beta, batch, targets):
    cost, y, u = make(name, beta, targets, batch)
    leaf = u.clone().requires_grad_()
    (expected,) = torch.autograd.grad(beta * COSTS[name](leaf, y).sum(), leaf)
    torch.testing.assert_close(cost.gradient(u), expected)


@each_cost
@each_beta
def test_curvature_is_the_diagonal_of_the_hessian(name, beta, targets):
    cost, y, u = make(name, beta, targets)
    for i in range(len(u)):
        hessian = torch.autograd.functional.hessian(
            lambda v, row=y[i : i + 1]: beta * COSTS[name](v.view(1, -1), row).sum(), u[i]
        )
        torch.testing.assert_close(cost.curvature(u).expand_as(u)[i], hessian.diagonal())


@each_cost
def test_value_is_differentiable(name, targets):
    cost, _, u = make(name, 0.5, targets)
    leaf = u.clone().requires_grad_()
    (by_autograd,) = torch.autograd.grad(cost.compute_energy(leaf).sum(), leaf)
    torch.testing.assert_close(by_autograd, cost.gradient(u))


@each_cost
def test_no_target_no_cost(name, targets):
    cost, _, u = make(name, 1.0, targets)
    assert cost.target is not None
    cost.set_target(None)
    assert cost.target is None
    assert torch.equal(cost.compute_energy(u), torch.zeros(5, dtype=u.dtype))
    assert not cost.gradient(u).any()
    assert not cost.curvature(u).any()


@each_cost
def test_target_is_none_at_first(name):
    assert CLASSES[name](1.0).target is None


@each_cost
def test_beta_can_be_changed(name, targets):
    cost, y, u = make(name, 1.0, targets)
    value, gradient, curvature = cost.compute_energy(u), cost.gradient(u), cost.curvature(u)
    value, gradient, curvature = value.clone(), gradient.clone(), curvature.clone()
    cost.beta = -0.25
    torch.testing.assert_close(cost.compute_energy(u), -0.25 * value)
    torch.testing.assert_close(cost.gradient(u), -0.25 * gradient)
    torch.testing.assert_close(cost.curvature(u), -0.25 * curvature)
    assert torch.equal(cost.target, y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cross_entropy_of_huge_logits(dtype):
    cost = CrossEntropy(1.0)
    cost.set_target(torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=dtype))
    u = torch.tensor([[2e4, -2e4], [-2e4, 2e4]], dtype=dtype)
    expected = torch.tensor([0.0, 4e4], dtype=dtype)
    torch.testing.assert_close(cost.compute_energy(u), expected)
    gradient = torch.tensor([[0.0, 0.0], [-1.0, 1.0]], dtype=dtype)
    torch.testing.assert_close(cost.gradient(u), gradient)
    assert torch.isfinite(cost.curvature(u)).all()


@each_cost
def test_arguments_are_left_alone(name, targets):
    cost, y, u = make(name, 0.5, targets)
    u_before, y_before = u.clone(), y.clone()
    cost.compute_energy(u), cost.gradient(u), cost.curvature(u)
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


def test_a_cost_given_by_its_value_gets_its_gradient(targets):
    cost, u = Quartic(0.5), torch.randn(5, 4, dtype=torch.float64)
    y = targets(5, 4)
    cost.set_target(y)
    torch.testing.assert_close(cost.compute_energy(u), 0.5 * ((u - y) ** 4).sum(1))
    torch.testing.assert_close(cost.gradient(u), 0.5 * 4 * (u - y) ** 3)
    torch.testing.assert_close(cost.curvature(u), 0.5 * 12 * (u - y) ** 2)
