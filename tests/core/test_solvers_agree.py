"""Solvers: one fixed point and one gradient for all, an energy that does not rise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from networks import (
    COSTS,
    GRAPH,
    LOCALS,
    SHAPES,
    assert_close_lists,
    build,
    equilibrium,
    gradient_by_autograd,
    images,
    implicit_gradient,
    random_nudge,
    random_state,
    total_energy,
)

from eqprop.estimator import CenteredEquilibriumPropagation, EquilibriumPropagation
from eqprop.network import Network, State, residual
from eqprop.relaxation import (
    Anderson,
    Euler,
    Exact,
    Newton,
    Solver,
    StopReason,
    Sweep,
    recommended_solver,
)

pytestmark = pytest.mark.estimators
TOL = 1e-11
SOLVERS: dict[str, Callable[..., Solver]] = {
    "euler": lambda **k: Euler(0.25, 1.0, 3000, tol=TOL, **k),
    "adaptive": lambda **k: Euler(0.25, 1.0, 3000, tol=TOL, adaptive=True, **k),
    "newton": lambda **k: Newton(n_relax=500, n_nudged=500, tol=TOL, **k),
    "forward": lambda **k: Sweep("newton", "forward", 500, 500, tol=TOL, **k),
    "even_odd": lambda **k: Sweep("newton", "even_odd", 500, 500, tol=TOL, **k),
    "anderson": lambda **k: Anderson(0.25, n_relax=500, tol=TOL, **k),
}
EXACT: dict[str, Callable[..., Solver]] = {
    "exact": lambda **k: Exact(n_relax=800, tol=TOL, **k),
    "exact_forward": lambda **k: Sweep("exact", "forward", 800, 800, tol=TOL, **k),
    "exact_even_odd": lambda **k: Sweep("exact", "even_odd", 800, 800, tol=TOL, **k),
    "exact_half": lambda **k: Exact(n_relax=800, tol=TOL, dt=0.5, **k),
}
PROJECTED: dict[str, Callable[..., Solver]] = {
    "projected": lambda **k: Sweep("projected", "backward", 800, 800, tol=TOL, **k),
    "projected_half": lambda **k: Sweep("projected", "even_odd", 800, 800, tol=TOL, dt=0.5, **k),
}
DEEP = [(4,), (6,), (5,), (6,), (3,)]
NETWORKS = {
    "one hidden layer": ([(0, 1), (1, 2)], SHAPES[:2] + SHAPES[3:]),
    "three hidden layers": ([(0, 1), (1, 2), (2, 3), (3, 4)], DEEP),
    "graph": (GRAPH, SHAPES),
}
MODELS = ("gaussian", "hopfield")
each_kind = pytest.mark.parametrize("kind", sorted(LOCALS))
each_cost = pytest.mark.parametrize("cost", sorted(COSTS))
each_network = pytest.mark.parametrize("shape", NETWORKS)


def make(kind: str, phi: str, shape: str, scale: float = 0.5) -> Network:
    """With small weights, so that there is one minimum."""
    joins, shapes = NETWORKS[shape]
    network = build(LOCALS[kind](), phi, joins, shapes)
    with torch.no_grad():
        for edge in network.W:
            edge.weight.mul_(scale)
    return network


def like(network: Network, start: State) -> State:
    """A state of its own at ``start``."""
    state = network.new_state(start.batch_size)
    state.u[:] = start.u
    for layer, clamped in enumerate(start.clamped):
        if clamped:
            state.clamp(layer, start.u[layer])
    return state


@pytest.mark.parametrize(
    ("kind", "clamped"),
    [  # (of the Gaussian energy, a free input may lie in a valley without a floor)
        ("gaussian", (0,)),
        ("gaussian", (0, 2)),
        ("hopfield", (0,)),
        ("hopfield", (0, 2)),
        ("hopfield", ()),
        ("predictive_coding", (0,)),
        ("rate_hopfield", (0, 2)),
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", ["three hidden layers", "graph"])
@pytest.mark.parametrize("cost", [None, "cross_entropy"])
def test_one_fixed_point(kind, cost, shape, clamped):
    network = make(kind, "tanh", shape)
    start = random_state(network, clamped=clamped)
    nudge = None if cost is None else random_nudge(network, cost, 0.5)
    ends = {}
    for name, solver in SOLVERS.items():
        state = like(network, start)
        found = solver().relax(network, state, nudge, 2000)
        assert found.reason is StopReason.CONVERGED, name
        grads = gradient_by_autograd(network, state.u, nudge)
        for layer in state.free:
            assert grads[layer].abs().max() < 1e-9, name
        ends[name] = state
    wanted = equilibrium(network, ends["euler"], nudge)
    for state in ends.values():
        assert_close_lists(state.u, wanted, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", ["gaussian", "predictive_coding"])
def test_an_energy_without_an_exact_move_is_refused(kind):
    with pytest.raises(ValueError, match=LOCALS[kind].__name__):
        Exact().check(make(kind, "relu", "graph"))


@pytest.mark.parametrize("shape", ["one hidden layer", "graph"])
@pytest.mark.parametrize(
    ("kind", "phi"),
    [
        *(("hopfield", phi) for phi in ("identity", "leaky_relu")),
        *(("rate_hopfield", phi) for phi in ("identity", "relu", "relu6")),
    ],
)
@pytest.mark.parametrize("beta", [None, -0.3])
def test_exact_reaches_the_same_fixed_point(shape, kind, phi, beta):
    network = make(kind, phi, shape)
    start = random_state(network)
    nudge = None if beta is None else random_nudge(network, "squared_error", beta)
    ends = []
    for solver in (*EXACT.values(), SOLVERS["euler"]):
        state = like(network, start)
        solver().check(network)
        assert solver().relax(network, state, nudge, 2000).reason is StopReason.CONVERGED
        ends.append(state.u)
    for end in ends[:-1]:
        assert_close_lists(end, ends[-1], rtol=0, atol=1e-8)


@each_kind
@pytest.mark.parametrize(
    ("shape", "cost", "phi", "clamped"),
    [
        ("graph", "squared_error", "tanh", (0,)),
        ("three hidden layers", "cross_entropy", "tanh", (0,)),
        ("graph", "cross_entropy", "tanh", (0, 1)),
        ("one hidden layer", "squared_error", "identity", (0,)),
    ],
    ids=str,
)
def test_gradients_agree_between_solvers_and_with_implicit_differentiation(
    kind, cost, shape, phi, clamped
):
    """Each solver's EP gradient is the same, and near the gradient of the cost: O(β²)."""
    network = make(kind, phi, shape)
    start, target = random_state(network, clamped=clamped), random_nudge(network).target
    of_cost = COSTS[cost]()
    exact = implicit_gradient(network, like(network, start), of_cost, target)
    solvers = dict(SOLVERS)
    if kind == "hopfield" and phi == "identity" and cost == "squared_error":
        solvers |= EXACT
    if kind in ("predictive_coding", "rate_hopfield"):
        solvers |= PROJECTED
    found = {}
    for name, solver in solvers.items():
        ep, state = CenteredEquilibriumPropagation(2e-3), like(network, start)
        estimate = ep.estimate(network, state, solver(init="zeros"), of_cost, target)
        found[name] = [g.clone() for g in estimate.gradients]
        assert estimate.phases["nudged"].reason is StopReason.CONVERGED, name
    for gradients in found.values():
        assert_close_lists(gradients, found["euler"], rtol=1e-6, atol=1e-7)
    assert_close_lists(found["newton"], exact, rtol=1e-3, atol=1e-5)


@each_cost
@each_network
def test_from_the_feed_forward_pass_gradients_agree(cost, shape):
    """Of the Gaussian energy, one-sided: without a free phase, and equal to backprop's."""
    network, of_cost = make("gaussian", "sigmoid", shape), COSTS[cost]()
    start, target = random_state(network), random_nudge(network).target
    exact = implicit_gradient(network, like(network, start), of_cost, target)
    state = like(network, start)
    with state.held():
        network.feed_forward(state)
    rates = [u.clone() for u in state.u]
    by_hand = [rates[0]]
    for layer in range(1, network.n_layers):
        into = network.into[layer]
        by_hand.append(sum(edge(network.phi[edge.source](by_hand[edge.source])) for edge in into))
    assert_close_lists(rates, [u.detach() for u in by_hand])
    loss = of_cost.cost(by_hand[-1], target).mean()
    backprop = torch.autograd.grad(loss, list(network.parameters()))
    assert_close_lists(backprop, exact)
    found = []
    for name in SOLVERS:
        solver, ep = SOLVERS[name](), EquilibriumPropagation(1e-4)
        estimate = ep.estimate(network, like(network, start), solver, of_cost, target)
        assert estimate.phases["free"].reason is StopReason.EXACT
        found.append([g.clone() for g in estimate.gradients])
    for gradients in found:
        assert_close_lists(gradients, found[0], rtol=1e-5, atol=1e-6)
        assert_close_lists(gradients, backprop, rtol=1e-2, atol=1e-4)


def test_newton_on_images():
    """Edges by their function alone; the power method bounds the curvature."""
    network = images(LOCALS["gaussian"](), "tanh")
    state, nudge = random_state(network, 2), random_nudge(network, batch=2)
    with state.held():
        network.feed_forward(state)
    assert Newton(tol=1e-9).relax(network, state, nudge, 400).residual < 1e-9
    for g in gradient_by_autograd(network, state.u, nudge)[1:]:
        assert g.abs().max() < 1e-8


FALLING = ["adaptive", "newton", "forward", "even_odd", "anderson"]


@pytest.mark.parametrize(
    ("kind", "solver"),
    [
        (kind, solver)
        for kind in sorted(LOCALS)
        for solver in FALLING  # Anderson is no worse than Euler, which is bad at a range's ends
        if (kind, solver) != ("rate_hopfield", "anderson")
    ],
)
@each_network
def test_the_energy_does_not_rise(kind, solver, shape):
    network = make(kind, "sigmoid", shape, 2.0)
    falls(network, SOLVERS[solver]())


@pytest.mark.parametrize("order", ["backward", "forward", "even_odd"])
@each_network
def test_the_energy_does_not_rise_in_exact_sweeps(order, shape):
    falls(make("hopfield", "hard_sigmoid", shape, 2.0), Sweep("exact", order))


def falls(network: Network, solver: Solver) -> None:
    state = random_state(network, 5)
    with torch.no_grad():
        for nudge in (None, random_nudge(network, batch=5)):
            solver.begin(network, state, nudge)
            before = total_energy(network, state.u, nudge)
            for _ in range(40):
                solver.step(network, state, nudge)
                after = total_energy(network, state.u, nudge)
                assert (after <= before + 1e-9 * before.abs().clamp_min(1.0)).all()
                before = after


def test_adaptive_euler_survives_a_step_that_diverges():
    network = make("gaussian", "sigmoid", "one hidden layer", 4.0)
    start = random_state(network)
    plain = Euler(2.0, 1.0).relax(network, like(network, start), None, 2000, measure=True)
    assert plain.reason is StopReason.NOT_FINITE
    careful = Euler(2.0, 1.0, adaptive=True)
    found = careful.relax(network, like(network, start), None, 2000, measure=True)
    assert found.residual < 1e-6


@pytest.mark.parametrize(
    ("kind", "solver"),
    [
        *((kind, solver) for kind in MODELS for solver in ("euler", "newton", "even_odd")),
        ("predictive_coding", "euler"),
        ("predictive_coding", "projected"),
        ("rate_hopfield", "projected"),
    ],
)
def test_no_tensor_is_allocated_inside_a_relaxation(kind, solver):
    network = build(LOCALS[kind](), "sigmoid", shapes=[(30,), (40,), (50,), (10,)])
    state, nudge = random_state(network, 20), random_nudge(network, "cross_entropy", batch=20)
    stepper = Sweep("projected") if solver == "projected" else SOLVERS[solver]()
    stepper.tol = 0.0
    with torch.no_grad(), state.held():
        stepper.relax(network, state, nudge, 2)
        with torch.profiler.profile(profile_memory=True) as profile:
            stepper.advance(network, state, nudge, 5)
    sizes = [e.self_cpu_memory_usage for e in profile.key_averages()]
    assert max(sizes) < 8 * 20 * 40, "no more than a scalar, or one number a unit"


@each_kind
def test_a_layer_held_at_the_output_is_not_the_feed_forward_equilibrium(kind):
    """A free phase then has to relax, whatever the energy."""
    network = make(kind, "tanh", "three hidden layers")
    state = random_state(network, clamped=(0, 4))
    found = Newton(n_relax=500, tol=TOL).free_phase(network, state)
    assert found.reason is StopReason.CONVERGED
    for g in gradient_by_autograd(network, state.u)[1:4]:
        assert g.abs().max() < 1e-9


def test_what_a_solver_cannot_relax_is_refused_before_the_run():
    class Mine(Network):
        def energy(self, u):
            return sum(layer.square().sum(1) for layer in u)

    whole = build(LOCALS["gaussian"](), network=Mine)
    for solver in (Newton(), Exact(), Sweep("newton", "even_odd")):
        with pytest.raises(ValueError, match="Mine"):
            solver.check(whole)
    with pytest.raises(ValueError, match="feedforward"):
        Euler(init="feedforward").check(whole)
    with pytest.raises(ValueError, match="tanh"):
        Exact().check(make("hopfield", "tanh", "graph"))
    Exact().check(make("hopfield", "relu", "graph"))
    relu = make("hopfield", "relu", "graph")
    state, nudge = random_state(relu), random_nudge(relu, "cross_entropy")
    with pytest.raises(ValueError, match="CrossEntropy"):
        Exact().relax(relu, state, nudge, 1)


def test_the_recommended_solver():
    class Mine(Network):
        def energy(self, u):
            return sum(layer.square().sum(1) for layer in u)

    assert type(recommended_solver(build(LOCALS["gaussian"]()))) is Newton
    chosen = recommended_solver(build(LOCALS["gaussian"](), network=Mine), n_relax=7, tol=1e-3)
    assert (type(chosen), chosen.n_relax, chosen.n_nudged, chosen.tol) == (Euler, 7, 7, 1e-3)
    newton = recommended_solver(build(LOCALS["hopfield"]()), dt=0.5, n_nudged=9)
    assert (newton.dt, newton.n_nudged, newton.n_relax) == (0.5, 9, Newton().n_relax)


def test_the_residual_is_the_sum_of_the_layers_mean_norms():
    g = [None, torch.randn(4, 3), torch.randn(4, 2, 3, 3)]
    wanted = sum(layer.flatten(1).norm(dim=1).mean() for layer in g[1:])
    torch.testing.assert_close(residual(g), wanted)
    assert residual([None]) == 0
