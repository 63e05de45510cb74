"""Backpropagation through time: against implicit differentiation, and finite differences."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from cases import KINDS, NETS, batch, network
from configs import refusal
from networks import COSTS, assert_close_lists

from eqprop import SquaredError
from eqprop.estimator import BackpropThroughTime, ImplicitDifferentiation
from eqprop.relaxation import Anderson, Euler, Exact, Newton, StopReason, Sweep

SOLVERS = {
    "euler": lambda n, **keys: Euler(0.2, n_relax=n, **keys),
    "newton": lambda n, **keys: Newton(n, **keys),
    "exact": lambda n, **keys: Exact(n, **keys),
    "projected": lambda n, **keys: Sweep("projected", "even_odd", n, **keys),
    "half": lambda n, **keys: Sweep("projected", "forward", n, dt=0.5, **keys),
}
CLOSED = {  # the energies that have the rule, and with which activation
    "exact": {"hopfield": "leaky_relu", "rate_hopfield": "tanh"},
    "projected": {"hopfield": "relu", "rate_hopfield": "tanh", "predictive_coding": "tanh"},
    "half": {"rate_hopfield": "tanh", "predictive_coding": "tanh"},
}
CASES = [
    (kind, name, CLOSED[name][kind] if name in CLOSED else "tanh")
    for name in SOLVERS
    for kind in KINDS
    if name not in CLOSED or kind in CLOSED[name]
]
EXACT = [case for case in CASES if case[1] in ("euler", "projected", "half")]
"""Sweeps of the other rules say that their derivative is that at the equilibrium."""
each_case = pytest.mark.parametrize(("kind", "name", "phi"), CASES)
each_net = pytest.mark.parametrize("net", NETS)


def calm(kind, net, phi):
    """A minimum on no kink of a max pool, and rates far from the ends of their range."""
    made = network(kind, net, phi)
    with torch.no_grad():
        for edge in made.W:
            edge.weight.mul_(0.7 if kind in ("gaussian", "predictive_coding") else 0.3)
    return made


def fresh(made, x):
    """A state whose noise is always the same."""
    state = made.new_state(len(x), torch.Generator().manual_seed(3))
    state.clamp(0, x)
    return state


def estimated(made, solver, x, y, estimator, cost=None, measure=False):
    state = fresh(made, x)
    found = estimator.estimate(made, state, solver, cost or SquaredError(), y, measure=measure)
    assert_close_lists([found.output], [state.u[-1]])
    return found


def distance(found, wanted):
    flat = [torch.cat([g.flatten() for g in gradients]) for gradients in (found, wanted)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


@each_case
@each_net
def test_more_and_more_steps_give_the_implicit_gradient(kind, name, phi, net):
    made = calm(kind, net, phi)
    x, y = batch(made)
    exact = ImplicitDifferentiation(tol=1e-12, max_iterations=400)
    n_steps, steps = (200, (4, 16, 64)) if name == "euler" else (60, (1, 4, 16))
    solver = SOLVERS[name](n_steps, init="auto" if made.feedforward else "zeros")
    free = estimated(made, solver, x, y, exact, measure=True)
    assert free.metrics["relaxation/free_residual"] < 1e-9
    wanted = [g.clone() for g in free.gradients]
    errors = [
        distance(estimated(made, solver, x, y, BackpropThroughTime(k)).gradients, wanted)
        for k in steps
    ]
    assert all(later < 0.9 * sooner or later < 1e-9 for sooner, later in pairwise(errors))
    assert errors[-1] < (0.02 if name == "euler" else 0.01)


@each_net
@pytest.mark.parametrize("cost", sorted(COSTS))
def test_projected_sweeps_of_predictive_coding_need_as_many_as_there_are_layers(net, cost):
    """A theorem: each sweep takes the error one layer down."""
    made, cost = network("predictive_coding", net), COSTS[cost]()
    x, y = batch(made)
    solver = SOLVERS["projected"](20)
    wanted = estimated(made, solver, x, y, ImplicitDifferentiation(1e-13, 400), cost).gradients
    errors = [
        distance(estimated(made, solver, x, y, BackpropThroughTime(k), cost).gradients, wanted)
        for k in (1, 2, 3, 4)
    ]
    assert min(errors[:2]) > 0.01
    assert max(errors[2:]) < 1e-10


@pytest.mark.parametrize(("kind", "name", "phi"), EXACT)
@each_net
def test_all_steps_have_the_derivative_of_the_relaxation(kind, name, phi, net):
    """Far from equilibrium, by finite differences of the real one, from a start that is fixed."""
    made, width = calm(kind, net, phi), 1e-5
    x, y = batch(made)
    # zeros would lie on every kink of a max pool, noise at the ends of the range of a rate
    solver = SOLVERS[name](4, init="zeros" if kind == "rate_hopfield" else "normal")
    found = estimated(made, solver, x, y, BackpropThroughTime(9))
    parameters = [p.data for p in made.parameters()]
    for _ in range(2):
        along, ends = [torch.randn_like(p) for p in parameters], []
        for sign in (1.0, -1.0):
            for p, a in zip(parameters, along, strict=True):
                p.add_(a, alpha=sign * width)
            state = fresh(made, x)
            solver.free_phase(made, state)
            ends.append(SquaredError().cost(state.u[-1], y).mean())
            for p, a in zip(parameters, along, strict=True):
                p.sub_(a, alpha=sign * width)
        slope = sum((g * a).sum() for g, a in zip(found.gradients, along, strict=True))
        torch.testing.assert_close(slope, (ends[0] - ends[1]) / (2 * width), rtol=1e-6, atol=1e-9)


@each_case
def test_it_ends_where_the_free_phase_does(kind, name, phi):
    made = calm(kind, "dense", phi)
    x, y = batch(made)
    solver = SOLVERS[name](12, init="zeros")
    state = fresh(made, x)
    phase = solver.free_phase(made, state, measure=True)
    for steps in (1, 5, 12, 30):
        found = estimated(made, solver, x, y, BackpropThroughTime(steps), measure=True)
        torch.testing.assert_close(found.output, state.u[-1])
        free = found.phases["free"]
        assert (free.steps, free.reason) == (12, StopReason.STEP_LIMIT)
        assert free.residual == pytest.approx(phase.residual)
        assert free.first_residual == pytest.approx(phase.first_residual)
        assert free.layer_residuals == pytest.approx(phase.layer_residuals)
        assert found.metrics["relaxation/free_residual"] == free.residual
        plain = estimated(made, solver, x, y, BackpropThroughTime(steps))
        assert plain.metrics == {}
        assert_close_lists(plain.gradients, found.gradients, rtol=0, atol=0)


def test_a_feed_forward_pass_is_followed_by_all_steps():
    made = network("gaussian", "dense")
    x, y = batch(made)
    found = estimated(made, Newton(2), x, y, BackpropThroughTime(7), measure=True)
    free = found.phases["free"]
    assert (free.steps, free.reason) == (7, StopReason.EXACT)
    assert free.residual < 1e-12
    torch.testing.assert_close(found.output, made(x))


def test_a_tolerance_ends_the_steps_before():
    made = network("hopfield", "dense")
    x, y = batch(made)
    found = estimated(made, Newton(500, tol=1e-6), x, y, BackpropThroughTime(3))
    assert 3 < found.phases["free"].steps < 400
    assert found.phases["free"].reason is StopReason.CONVERGED


@pytest.mark.parametrize("kind", ["gaussian", "hopfield"])
def test_parameters_that_no_step_has_reached_have_no_gradient(kind):
    made = network(kind, "max").float()
    made.use_channels_last()
    x, y = batch(made)
    found = estimated(made, Euler(0.1, n_relax=9), x.float(), y, BackpropThroughTime(1)).gradients
    assert [bool(g.any()) for g in found] == [False] * 4 + [True] * 2
    assert [g.stride() for g in found] == [p.stride() for p in made.parameters()]
    assert {g.dtype for g in found} == {torch.float32}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dynamics": {"_target_": "eqprop.relaxation.Anderson"}}, ["Anderson", "dynamics=euler"]),
        ({"dynamics.adaptive": True}, ["dynamics.adaptive=true", "choose"]),
        ({"estimator.steps": 0}, ["estimator.steps=0"]),
    ],
)
def test_refused_in_one_line(changes, words):
    estimator = {"_target_": "eqprop.estimator.BackpropThroughTime", "steps": 3}
    line = refusal({"estimator": estimator, **changes})
    assert "\n" not in line
    for word in words:
        assert word in line


def test_a_solver_without_a_differentiable_step_says_so():
    made = network("hopfield", "dense")
    x, y = batch(made)
    with pytest.raises(NotImplementedError, match="Anderson has no differentiable step"):
        estimated(made, Anderson(), x, y, BackpropThroughTime(3))
