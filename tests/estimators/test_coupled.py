"""Contrasts with a clamped output: by closed forms, by the contrast's own slope, by the limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import cases
import pytest
import torch
from networks import (
    COSTS,
    GRAPH,
    LOCALS,
    SHAPES,
    _hessian,
    assert_close_lists,
    build,
    equilibrium,
    gradient_by_autograd,
    implicit_gradient,
    random_nudge,
    random_state,
    weights_by_autograd,
)
from torch import Tensor

from eqprop.estimator import (
    ContrastiveHebbianLearning,
    CoupledLearning,
    EquilibriumPropagation,
    Estimate,
    Estimator,
)
from eqprop.network import Cost, Network, SquaredError, State
from eqprop.relaxation import Anderson, Euler, Exact, Newton, Solver, StopReason, Sweep

TOL = 1e-11
KINDS = sorted(LOCALS)
VARIANTS = ("positive", "negative", "centered")
MADE: dict[str, Callable[[], Estimator]] = {
    **{variant: lambda v=variant: CoupledLearning(0.3, v) for variant in VARIANTS},
    "contrastive": ContrastiveHebbianLearning,
}
each_kind = pytest.mark.parametrize("kind", KINDS)
each_estimator = pytest.mark.parametrize("made", MADE)
some_estimators = pytest.mark.parametrize("made", ["centered", "contrastive"])


def shrunk(network: Network, by: float = 0.5) -> Network:
    """With small weights: there is one equilibrium, and no unit rests on a pool's kink."""
    with torch.no_grad():
        for edge in network.W:
            edge.weight.mul_(by)
    return network


def small(kind: str, net: str = "dense") -> Network:
    return shrunk(cases.network(kind, net), 0.5 if net == "dense" else 0.3)


def converging() -> Solver:
    return Newton(n_relax=500, n_nudged=500, tol=TOL, init="zeros")


def estimated(
    estimator: Estimator, network: Network, solver: Solver, cost: Cost | None = None, **how: Any
) -> tuple[Estimate, State]:
    """What it makes of a batch, and the state where it ends."""
    x, y = cases.batch(network, 2)
    state = network.new_state(len(x))
    state.clamp(0, x)
    return estimator.estimate(network, state, solver, cost or SquaredError(), y, **how), state


def norm(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(float(t.square().sum()) for t in tensors))


# ------------------------------------------------------------- what it descends


def free_and_clamped(network: Network, made: str) -> list[tuple[float, Tensor | None]]:
    """The factor c_k and the clamped output o_k (none in the free phase), as the papers say."""
    x, y = cases.batch(network, 2)
    state = network.new_state(2)
    state.clamp(0, x)
    free = converging().free_phase(network, state)
    assert free.reason in (StopReason.CONVERGED, StopReason.EXACT)
    o = state.u[-1].clone()
    to, off = o - 0.3 * (o - y), o + 0.3 * (o - y)
    return {
        "positive": [(1 / 0.3, to), (-1 / 0.3, None)],
        "negative": [(1 / 0.3, None), (-1 / 0.3, off)],
        "centered": [(1 / 0.6, to), (-1 / 0.6, off)],
        "contrastive": [(1.0, y), (-1.0, None)],
    }[made]


def contrast(network: Network, parts: list[tuple[float, Tensor | None]]) -> float:
    """Σ_k c_k ⟨E⟩ at the equilibria of these weights, the outputs o_k held."""
    total, (x, _) = 0.0, cases.batch(network, 2)
    for c, output in parts:
        state = network.new_state(2)
        state.clamp(0, x)
        if output is not None:
            state.clamp(network.n_layers - 1, output)
        converging().relax(network, state, None, 500)
        slope = gradient_by_autograd(network, state.u)
        assert norm([slope[layer] for layer in state.free]) < 1e-9, "it is an equilibrium"
        total += c * float(network.energies(state).mean())
    return total


def moved(network: Network, along: list[Tensor], by: float) -> None:
    with torch.no_grad():
        for parameter, direction in zip(network.parameters(), along, strict=True):
            parameter.add_(direction, alpha=by)


@each_kind
@pytest.mark.parametrize("net", cases.NETS)
@each_estimator
def test_it_is_the_slope_of_its_own_contrast(kind: str, net: str, made: str) -> None:
    """The outputs are held where they were clamped, while the weights move."""
    network = small(kind, net)
    parts = free_and_clamped(network, made)
    found = [g.clone() for g in estimated(MADE[made](), network, converging())[0].gradients]
    before, step = contrast(network, parts), 1e-4 / norm(found)
    moved(network, found, -step)
    down = contrast(network, parts)
    moved(network, found, 2 * step)
    up = contrast(network, parts)
    assert down < before < up
    assert (up - down) / (2 * step) == pytest.approx(norm(found) ** 2, rel=1e-5)
    moved(network, found, -step)
    across = [torch.randn_like(g) for g in found]  # no part of the slope is missing
    moved(network, across, 1e-5)
    up = contrast(network, parts)
    moved(network, across, -2e-5)
    slope = (up - contrast(network, parts)) / 2e-5
    along = sum(float((g * d).sum()) for g, d in zip(found, across, strict=True))
    assert slope == pytest.approx(along, rel=1e-4, abs=1e-6)


@each_kind
@each_estimator
def test_the_cost_falls_with_small_steps(kind: str, made: str) -> None:
    network = small(kind)
    estimator, solver, costs = MADE[made](), Newton(), []
    for _ in range(30):
        estimate, _ = estimated(estimator, network, solver)
        costs.append(float((estimate.output - cases.batch(network, 2)[1]).square().sum()))
        moved(network, estimate.gradients, -0.05)
    assert costs[-1] < 0.5 * costs[0]


# ------------------------------------------------------------- limits that are exact


class Along(Cost):
    """⟨v, o⟩: the target is the cost's gradient."""

    def cost(self, u_last: Tensor, target: Tensor) -> Tensor:
        return (u_last * target).flatten(1).sum(1)


def schur(network: Network, state: State, u: list[Tensor], v: Tensor) -> Tensor:
    """S v, S the curvature of E in the output, the other free layers following."""
    H, n = _hessian(network, u, state.free), v.numel()
    S = H[-n:, -n:] - H[-n:, :-n] @ torch.linalg.solve(H[:-n, :-n], H[:-n, -n:])
    return (S @ v.flatten()).view_as(v)


@each_kind
@pytest.mark.parametrize(
    ("net", "cost"),
    [("dense", "squared_error"), ("dense", "cross_entropy"), ("max", "cross_entropy")],
)
def test_small_steps_of_the_output_give_the_gradient_of_a_pull_times_curvature(
    kind: str, net: str, cost: str
) -> None:
    """Implicit differentiation with S ∂C/∂o in the place of ∂C/∂o."""
    network, of = small(kind, net), COSTS[cost]()
    x, y = cases.batch(network, 2)
    state = network.new_state(2)
    state.clamp(0, x)
    converging().free_phase(network, state)
    u = equilibrium(network, state)
    pull = schur(network, state, u, of.gradient(u[-1], y, torch.empty_like(y)))
    exact = implicit_gradient(network, state, Along(), pull)
    for variant, order in {"positive": 1, "negative": 1, "centered": 2}.items():
        errors = []
        for beta in (0.02, 0.01):
            estimate, _ = estimated(CoupledLearning(beta, variant), network, converging(), of)
            errors.append(norm([g - e for g, e in zip(estimate.gradients, exact, strict=True)]))
        assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)
        assert errors[1] < 0.05 * norm(exact)


SCALES = {"gaussian": 2.0, "predictive_coding": 1.0, "hopfield": 1.0, "rate_hopfield": 1.0}


@each_kind
@pytest.mark.parametrize("beta", [0.3, 1.7])
@pytest.mark.parametrize("variant", VARIANTS)
def test_one_linear_layer_has_the_gradient_itself(kind: str, beta: float, variant: str) -> None:
    """At any β, and times the energy's own factor: nothing is left to relax."""
    network = build(LOCALS[kind](), "identity", [(0, 1)], [(4,), (3,)])
    x, y = cases.batch(network, 2)
    cost = 0.5 * (network.feed_forward_output(x) - y).square().sum(1).mean()
    exact = torch.autograd.grad(cost, list(network.parameters()))
    wanted = [SCALES[kind] * g for g in exact]
    for solver in (Euler(0.5, n_relax=60), Newton(), Anderson(n_relax=60)):
        estimate, state = estimated(CoupledLearning(beta, variant), network, solver, measure=True)
        assert_close_lists(estimate.gradients, wanted)
        assert estimate.phases["nudged"].reason is StopReason.NOTHING_FREE
        assert estimate.metrics["relaxation/nudged_steps"] == 0
        assert state.clamped == [True, False]
    estimate, _ = estimated(ContrastiveHebbianLearning(), network, Newton())
    assert_close_lists(estimate.gradients, wanted)


@pytest.mark.parametrize("beta", [0.3, 1.7])
def test_a_linear_gaussian_network_is_exact_at_any_strength(beta: float) -> None:
    """E is quadratic, so both sides' curvatures cancel; S = 2 (1 + W Wᵀ)⁻¹."""
    network = build(LOCALS["gaussian"](), "identity", [(0, 1), (1, 2)], [(4,), (6,), (3,)])
    x, y = cases.batch(network, 2)
    W, output = network.W[1].weight.detach(), network.feed_forward_output(x)
    S = 2.0 * torch.linalg.inv(torch.eye(3, dtype=W.dtype) + W @ W.T)
    pull = (output.detach() - y) @ S
    wanted = torch.autograd.grad((output * pull).sum(1).mean(), list(network.parameters()))
    found, _ = estimated(CoupledLearning(beta, "centered"), network, converging())
    assert_close_lists(found.gradients, wanted)


@each_kind
@pytest.mark.parametrize("net", cases.NETS)
def test_contrastive_is_coupled_all_the_way_to_the_target(kind: str, net: str) -> None:
    """With a squared error; and whatever the cost is."""
    network = small(kind, net)
    wanted = estimated(CoupledLearning(1.0), network, converging())[0].gradients
    for cost in COSTS.values():
        estimate, _ = estimated(ContrastiveHebbianLearning(), network, converging(), cost())
        assert_close_lists(estimate.gradients, wanted)


@pytest.mark.parametrize("kind", ["gaussian", "predictive_coding"])
@pytest.mark.parametrize("net", cases.NETS)
def test_contrastive_is_usual_predictive_coding(kind: str, net: str) -> None:
    """∂E/∂θ where E is least with input and output held, from a feed-forward pass."""
    network = small(kind, net)
    x, y = cases.batch(network, 2)
    state = network.new_state(2)
    state.clamp(0, x)
    network.feed_forward(state)
    state.clamp(network.n_layers - 1, y)
    wanted = weights_by_autograd(network, equilibrium(network, state))
    solver = Newton(n_relax=500, n_nudged=500, tol=TOL)
    assert_close_lists(
        estimated(ContrastiveHebbianLearning(), network, solver)[0].gradients, wanted
    )


# ------------------------------------------------------------- every solver, every network


SOLVERS: dict[str, Callable[[], Solver]] = {
    "euler": lambda: Euler(0.2, n_relax=2000, tol=TOL, init="zeros"),
    "adaptive": lambda: Euler(0.2, n_relax=2000, tol=TOL, adaptive=True),
    "newton": lambda: Newton(n_relax=500, n_nudged=500, tol=TOL),
    "even_odd": lambda: Sweep("newton", "even_odd", 500, 500, tol=TOL),
    "anderson": lambda: Anderson(0.2, n_relax=1000, tol=TOL),
}
LAYERWISE: dict[str, Callable[[], Solver]] = {
    "exact": lambda: Exact(n_relax=800, tol=TOL),
    "projected": lambda: Sweep("projected", "even_odd", 800, 800, tol=TOL),
}


class Whole(Network):
    """Its energy is known as a whole only."""

    def energy(self, u: Any) -> Tensor:
        return super().energy(u)


@each_kind
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_finds_the_same(kind: str, solver: str) -> None:
    """On a graph with edges from the input, and around a layer, to the output."""
    network = shrunk(build(LOCALS[kind](), ["identity", "tanh", "tanh", "identity"], GRAPH))
    wanted = estimated(MADE["centered"](), network, converging())[0].gradients
    found, state = estimated(MADE["centered"](), network, SOLVERS[solver]())
    assert_close_lists(found.gradients, wanted, rtol=1e-6, atol=1e-8)
    assert state.clamped == [True, False, False, False]


@pytest.mark.parametrize("kind", ["hopfield", "rate_hopfield"])
@pytest.mark.parametrize("solver", LAYERWISE)
@some_estimators
def test_so_do_the_closed_forms_of_a_layer(kind: str, solver: str, made: str) -> None:
    network = shrunk(build(LOCALS[kind](), "hard_sigmoid"))
    wanted = estimated(MADE["centered"](), network, Euler(0.2, n_relax=2000, tol=TOL, clip="auto"))
    found = estimated(MADE["centered"](), network, LAYERWISE[solver]())[0]
    assert_close_lists(found.gradients, wanted[0].gradients, rtol=1e-6, atol=1e-8)


@some_estimators
@pytest.mark.parametrize("joins", [[(0, 1)], [(0, 1), (1, 2)]], ids=["no hidden", "hidden"])
def test_an_energy_that_is_given_as_a_whole(made: str, joins: list[tuple[int, int]]) -> None:
    shapes, found = [(4,), (5,), (3,)][-1 - len(joins) :], []
    for cls in (Network, Whole):
        torch.manual_seed(0)
        network = build(LOCALS["hopfield"](), "tanh", joins, shapes, network=cls)
        solver = Euler(0.2, n_relax=2000, tol=TOL, init="zeros")
        found.append(estimated(MADE["centered"](), network, solver, measure=True)[0].gradients)
    assert_close_lists(*found)


def test_an_edge_out_of_the_output_counts_in_each_phase() -> None:
    """A Hopfield network may have edges around: what they drive differs between the phases."""
    network = build(LOCALS["hopfield"](), "tanh", [(0, 1), (1, 2), (2, 1)], [(4,), (5,), (3,)])
    x, y = cases.batch(network, 2)
    state = network.new_state(2)
    state.clamp(0, x)
    converging().free_phase(network, state)
    free = equilibrium(network, state)
    state.clamp(2, y)
    clamped = equilibrium(network, state)
    pairs = zip(*(weights_by_autograd(network, u) for u in (clamped, free)), strict=True)
    found, _ = estimated(ContrastiveHebbianLearning(), network, converging())
    assert_close_lists(found.gradients, [a - b for a, b in pairs], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("phi", ["sigmoid", "hard_sigmoid", "tanh", "relu6"])
def test_the_output_is_held_within_the_range_of_its_activation(phi: str) -> None:
    """Outside, the energy of a RateHopfield unit is infinite."""
    network = build(LOCALS["rate_hopfield"](), phi)
    low, high = network.domains[-1]
    estimator, seen = CoupledLearning(40.0), []

    class Looking(Euler):
        def begin(self, network: Network, state: State, nudge: Any) -> None:
            if state.clamped[-1]:
                seen.append(state.u[-1].clone())
            super().begin(network, state, nudge)

    estimate, _ = estimated(estimator, network, Looking(0.1, n_relax=50, init="zeros"))
    y = cases.batch(network, 2)[1]
    o = estimate.output
    torch.testing.assert_close(seen[0], (o - 40.0 * (o - y)).clamp(low, high))
    assert all(g.isfinite().all() for g in estimate.gradients)


# ------------------------------------------------------------- what it leaves behind


@each_kind
@some_estimators
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_next_batch_knows_nothing_of_it(kind: str, made: str, solver: str) -> None:
    """On the same state, after an estimate and one that failed: the bytes of a fresh state."""

    class FailingError(Exception):
        pass

    network = build(LOCALS[kind](), "tanh", GRAPH)
    estimator, found = MADE[made](), SOLVERS[solver]()
    found.n_relax, found.n_nudged, found.tol = 5, 5, 0.0
    found.init = "zeros" if kind in ("hopfield", "rate_hopfield") else "auto"
    target = random_nudge(network, batch=3).target
    used, fresh = random_state(network), random_state(network)
    estimator.estimate(network, used, found, SquaredError(), target)
    plain, count = found.relax, iter(range(9))

    def failing(network: Network, state: State, nudge: Any, *more: Any) -> Any:
        result = plain(network, state, nudge, *more)
        if state.clamped[-1] or next(count) > 1:
            raise FailingError
        return result

    found.relax = failing  # type: ignore[method-assign,assignment]
    with suppress(FailingError):
        estimator.estimate(network, used, found, SquaredError(), target)
        raise AssertionError("the clamped phase was not relaxed")
    found.relax = plain  # type: ignore[method-assign]
    assert used.clamped == [True, False, False, False]
    used.clamp(0, fresh.u[0])
    ends = []
    for state in (used, fresh):
        estimate = estimator.estimate(network, state, found, SquaredError(), target)
        ends.append([*(g.clone() for g in estimate.gradients), estimate.output, *state.u])
    assert_close_lists(*ends, rtol=0, atol=0)


@some_estimators
def test_the_product_with_the_input_is_computed_once_a_batch(
    made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, seen = build(LOCALS["hopfield"](), "tanh"), []
    drive = type(network.W[0]).drive

    def counted(edge: Any, *arguments: Any) -> None:
        seen.append(edge.source)
        drive(edge, *arguments)

    monkeypatch.setattr(type(network.W[0]), "drive", counted)
    estimated(MADE[made](), network, Newton(n_relax=3, n_nudged=3))
    assert seen.count(0) == 1


@each_kind
@each_estimator
def test_metrics_have_the_names_of_a_nudged_phase(kind: str, made: str) -> None:
    """Energy and cost are those of the clamped state; the output, which is held, has no residual.

    Measuring changes no number.
    """
    network = small(kind)
    wanted = estimated(EquilibriumPropagation(0.3), network, Newton(), measure=True)[0].metrics
    measured, state = estimated(MADE[made](), network, Newton(), measure=True)
    plain, _ = estimated(MADE[made](), network, Newton())
    assert_close_lists(measured.gradients, plain.gradients, rtol=0, atol=0)
    missing = {"relaxation/nudged_residual/3"}
    assert set(measured.metrics) == set(wanted) - missing
    assert all(math.isfinite(value) for value in measured.metrics.values())
    energy = float(network.energies(state).mean())
    assert measured.metrics["energy/nudged"] == pytest.approx(energy)
    y = cases.batch(network, 2)[1]
    cost = 0.5 * float((state.u[-1] - y).square().sum(1).mean())
    assert measured.metrics["cost/nudged"] == pytest.approx(cost, abs=1e-12)


def test_what_cannot_be_is_refused() -> None:
    for beta in (0.0, -0.5):
        with pytest.raises(ValueError, match=r"estimator\.beta"):
            CoupledLearning(beta)
    with pytest.raises(ValueError, match=r"estimator\.variant=both"):
        CoupledLearning(0.5, "both")  # type: ignore[arg-type]


def test_a_clamp_within_a_hold_keeps_what_other_layers_know() -> None:
    network = build(LOCALS["hopfield"](), "tanh", GRAPH, SHAPES)
    state = random_state(network)
    with state.held():
        network.gradient(state)
        state.clamp(3, torch.zeros_like(state.u[3]))
        assert state.drive_known == [False, True, True, True]
        state.release(3)
        assert state.drive_known == [False, True, True, True]
        state.clamp(0, torch.zeros_like(state.u[0]))
        assert state.drive_known == [False, False, False, True]


@each_estimator
def test_no_nudge_is_drawn_in_the_place_of_a_clamped_phase(made: str) -> None:
    assert list(MADE[made]().nudges(SquaredError(), torch.eye(3))) == []


def test_what_is_overridden_is_not_captured() -> None:
    """A step captured on a GPU has to be the one that was looked at."""
    for cls in (CoupledLearning, EquilibriumPropagation):

        class Mine(cls):  # type: ignore[misc, valid-type]
            def nudged_phase(self, *arguments: Any) -> Any:
                return super().nudged_phase(*arguments)

        assert cls(0.5).capture_obstacle() is None
        assert "Mine" in Mine(0.5).capture_obstacle()
