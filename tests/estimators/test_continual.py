"""Weights that move within the nudged phase: by a loop that keeps nothing, and in the limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cases
import pytest
import torch
from networks import LOCALS, assert_close_lists, build, weights_by_autograd
from torch import Tensor

from eqprop.config.compose import compose
from eqprop.config.validation import validate_composed
from eqprop.estimator import ContinualEP, EquilibriumPropagation, Estimate
from eqprop.estimator.estimator import nudged
from eqprop.network import Network, SquaredError
from eqprop.relaxation import Anderson, Euler, Newton, Solver, Sweep
from eqprop.run.errors import ConfigError

BETA = 0.4
KINDS = sorted(LOCALS)
each_kind = pytest.mark.parametrize("kind", KINDS)
SOLVERS: dict[str, Callable[[], Solver]] = {
    "euler": lambda: Euler(0.1, n_relax=8, n_nudged=5, init="zeros"),
    "newton": lambda: Newton(n_relax=4, n_nudged=5),
    "even_odd": lambda: Sweep("newton", "even_odd", 4, 5),
    "anderson": lambda: Anderson(0.1, n_relax=8, n_nudged=5, init="zeros"),
    "tolerance": lambda: Newton(n_relax=60, n_nudged=60, tol=1e-6),
}


def estimated(
    estimator: EquilibriumPropagation, network: Network, solver: Solver, update: Any, **how: Any
) -> Estimate:
    x, y = cases.batch(network)
    state = network.new_state(len(x))
    state.clamp(0, x)
    return estimator.estimate(network, state, solver, SquaredError(), y, update=update, **how)


def descent(network: Network, lr: float, seen: list[list[Tensor]]) -> Callable[..., None]:
    """Plain gradient descent, which notes what it is given."""

    def update(gradients: list[Tensor]) -> None:
        seen.append([g.clone() for g in gradients])
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter.sub_(gradient, alpha=lr)

    return update


def added(parts: list[list[Tensor]]) -> list[Tensor]:
    return [torch.stack(of_one).sum(0) for of_one in zip(*parts, strict=True)]


def norm(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(float(t.square().sum()) for t in tensors))


@each_kind
@pytest.mark.parametrize("net", cases.NETS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_with_weights_that_stay_it_is_one_sided_ep(kind: str, net: str, solver: str) -> None:
    """The differences of successive steps add up to the difference of the ends."""
    network, seen = cases.network(kind, net), list[list[Tensor]]()
    wanted = estimated(EquilibriumPropagation(BETA), network, SOLVERS[solver](), None)
    parts = [g.clone() for g in wanted.gradients]
    found = estimated(ContinualEP(BETA), network, SOLVERS[solver](), descent(network, 0.0, seen))
    assert_close_lists(found.gradients, parts)
    assert_close_lists(added(seen), parts)
    assert len(seen) == found.phases["nudged"].steps == wanted.phases["nudged"].steps
    torch.testing.assert_close(found.output, wanted.output)
    direct = estimated(ContinualEP(BETA), network, SOLVERS[solver](), None)
    assert_close_lists(direct.gradients, parts, rtol=0, atol=0)
    assert (found.applied, direct.applied) == (True, False)


@each_kind
@pytest.mark.parametrize("net", cases.NETS)
@pytest.mark.parametrize("solver", ["euler", "newton", "even_odd"])
def test_each_step_is_as_with_a_state_that_knows_nothing(kind: str, net: str, solver: str) -> None:
    """The paper's loop: a fresh state at every step, the weight gradients by autograd."""
    network, ours, found = cases.network(kind, net), list[list[Tensor]](), SOLVERS[solver]()
    estimate = estimated(ContinualEP(BETA), network, found, descent(network, 0.02, ours))
    end = [p.detach().clone() for p in network.parameters()]

    network, theirs = cases.network(kind, net), list[list[Tensor]]()
    update = descent(network, 0.02, theirs)
    x, y = cases.batch(network)
    state = network.new_state(len(x))
    state.clamp(0, x)
    found.free_phase(network, state)
    nudge, u = nudged(SquaredError(), y, BETA), [layer.clone() for layer in state.u]
    for _ in range(5):
        state = network.new_state(len(x))
        state.clamp(0, x)
        state.u[:] = u
        with torch.no_grad():
            found.step(network, state, nudge)
        after = [layer.clone() for layer in state.u]
        pairs = zip(*(weights_by_autograd(network, v) for v in (after, u)), strict=True)
        with torch.no_grad():
            update([(a - b) / BETA for a, b in pairs])
        u = after
    assert_close_lists(added(ours), added(theirs))
    for one, other in zip(ours, theirs, strict=True):
        assert_close_lists(one, other)
    assert_close_lists(estimate.gradients, added(theirs))
    assert_close_lists(end, list(network.parameters()))


@each_kind
def test_it_goes_to_ep_as_the_rate_goes_to_zero(kind: str) -> None:
    """Its difference is of the order of the rate."""
    wanted = estimated(EquilibriumPropagation(BETA), cases.network(kind), Newton(), None).gradients
    errors = []
    for lr in (2e-3, 1e-3):
        network = cases.network(kind)
        found = estimated(ContinualEP(BETA), network, Newton(), descent(network, lr, []))
        errors.append(norm([g - e for g, e in zip(found.gradients, wanted, strict=True)]))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1.0, abs=0.05)
    assert errors[1] < 0.05 * norm(wanted)


@each_kind
def test_the_cost_falls(kind: str) -> None:
    network, costs = cases.network(kind), []
    update = descent(network, 0.02, [])
    for _ in range(40):
        estimate = estimated(ContinualEP(BETA), network, Newton(), update)
        costs.append(float((estimate.output - cases.batch(network)[1]).square().sum()))
    assert costs[-1] < 0.5 * costs[0]


@each_kind
def test_metrics_are_those_of_ep(kind: str) -> None:
    """By name, and with weights that stay by number; measuring changes no number."""
    network = cases.network(kind)
    wanted = estimated(EquilibriumPropagation(BETA), network, Newton(), None, measure=True)
    still = descent(network, 0.0, [])
    found = estimated(ContinualEP(BETA), network, Newton(), still, measure=True)
    assert found.metrics == pytest.approx(wanted.metrics, rel=1e-9, abs=1e-12)
    assert_close_lists(found.gradients, [g.clone() for g in wanted.gradients])
    ends = []
    for measure in (False, True):
        network = cases.network(kind)
        update = descent(network, 0.02, [])
        estimated(ContinualEP(BETA), network, Newton(), update, measure=measure)
        ends.append(list(network.parameters()))
    assert_close_lists(*ends, rtol=0, atol=0)


def test_weights_that_run_away_with_the_state_are_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once; and the solver is not blamed for it."""
    for lr, wanted in ((1e-3, 0), (5.0, 1)):
        network, continual = cases.network("gaussian"), ContinualEP(BETA)
        for _ in range(3):
            update = descent(network, lr, [])
            found = estimated(continual, network, Newton(), update, measure=True)
            assert found.phases["nudged"].first_residual is None
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == wanted
    assert "optimizer.lr" in told[0]
    assert "estimator.beta" in told[0]


def test_an_energy_that_is_given_as_a_whole() -> None:
    class Whole(Network):
        def energy(self, u: Any) -> Tensor:
            return super().energy(u)

    found = []
    for cls in (Network, Whole):
        torch.manual_seed(0)
        network, seen = build(LOCALS["gaussian"](), "tanh", network=cls), list[list[Tensor]]()
        solver = Euler(0.1, n_relax=20, n_nudged=4, init="zeros")
        estimated(ContinualEP(BETA), network, solver, descent(network, 0.02, seen))
        found.append(added(seen))
    assert_close_lists(*found)


def test_a_solver_that_compares_energies_of_two_steps_is_refused() -> None:
    cfg = compose(["estimator=continual", "dynamics=euler", "dynamics.adaptive=true"])
    with pytest.raises(ConfigError, match=r"^dynamics\.adaptive=true: .*estimator=continual"):
        validate_composed(cfg)


def test_plain_gradient_descent_is_its_optimizer_unless_another_is_chosen() -> None:
    optimizer = compose(["estimator=continual"]).optimizer
    assert (optimizer._target_, optimizer.momentum) == ("torch.optim.SGD", 0.0)
    chosen = compose(["estimator=continual", "optimizer=adam"])
    assert chosen.optimizer._target_ == "torch.optim.Adam"


def test_what_is_overridden_is_not_captured() -> None:
    class Mine(ContinualEP):
        def estimate(self, *arguments: Any, **keys: Any) -> Estimate:
            return super().estimate(*arguments, **keys)

    assert ContinualEP(0.5).capture_obstacle() is None
    assert "Mine" in str(Mine(0.5).capture_obstacle())
