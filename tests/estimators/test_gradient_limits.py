"""Orders, floors and what limits a gradient, on problems made to be limited by one thing."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import cases
import pytest
import torch
from networks import equilibrium, graph, implicit_gradient

from eqprop.estimator import (
    Backprop,
    CenteredEquilibriumPropagation,
    EquilibriumPropagation,
    ImplicitDifferentiation,
)
from eqprop.estimator.alignment import compare, total
from eqprop.estimator.error_sweep import Floor, Point, fitted_slope, steps, strengths
from eqprop.estimator.gradient_check import Candidate, Problem
from eqprop.estimator.limits import Evidence, judge, measure, pieces, share_moved, unknown
from eqprop.network import Dense, Hopfield, SquaredError
from eqprop.relaxation import Euler, Newton, Solver

BETAS = [0.2 / 2**k for k in range(6)]
TRUTH = ImplicitDifferentiation(1e-13, 1000)
SETTLED = Newton(n_relax=60, n_nudged=60)


def problem(kind: str = "hopfield", solver: Solver = SETTLED, phi: str = "tanh", n: int = 2) -> Any:
    network = cases.network(kind, phi=phi)
    batches = [cases.batch(network, 4, seed) for seed in range(n)]
    return Problem(network, solver, SquaredError(), batches)


def candidate(kind: Any = EquilibriumPropagation, beta: float = 0.1) -> Candidate:
    return Candidate("it", lambda beta=beta: kind(beta), "beta", beta)


def limit(of: Problem, it: Candidate) -> tuple[str, Evidence]:
    reference, solved = of.solve(TRUTH), of.solve(it.make())
    floor = Floor.of(of, reference)
    sweep = strengths(of, it, reference, floor, BETAS) if it.key else []
    evidence = measure(of, it, TRUTH, reference, solved, floor, sweep)
    return judge(evidence, it, it.make().order, "float64").name, evidence


# slopes


@pytest.mark.parametrize("order", [1, 2, 4])
def test_the_slope_of_a_law_with_a_floor_and_a_break(order: int) -> None:
    betas = [2.0**-k for k in range(-2, 20)]
    points = []
    for beta in betas:
        floor = 1e-7 / beta
        error = min(3 * beta**order, 0.3 * beta**0.2) + floor * math.cos(1 / beta) ** 2
        points.append(Point(beta, error, 1.0, floor))
    slope, at = fitted_slope(points)
    assert slope == pytest.approx(order, abs=0.1)
    assert len(at) == 4
    assert all(3 * beta**order > 5 * 1e-7 / beta for beta in at)


def test_no_slope_without_points_clear_of_the_floor() -> None:
    assert fitted_slope([]) == (None, [])
    points = [Point(beta, beta, 1.0, beta / 2) for beta in BETAS]
    assert fitted_slope(points) == (None, [])
    broken = [Point(beta, math.nan, math.nan, 0.0) for beta in BETAS]
    assert fitted_slope(broken) == (None, [])


@pytest.mark.parametrize("kind", cases.KINDS)
@pytest.mark.parametrize("estimator", [EquilibriumPropagation, CenteredEquilibriumPropagation])
def test_the_slope_is_the_estimator_s_order(kind: str, estimator: Any) -> None:
    of, it = problem(kind), candidate(estimator)
    reference = of.solve(TRUTH)
    points = strengths(of, it, reference, Floor.of(of, reference), BETAS)
    slope, _ = fitted_slope(points)
    assert slope == pytest.approx(estimator.order, abs=0.1)


def test_negative_strengths_have_a_slope_too() -> None:
    of, it = problem(), candidate(beta=-0.1)
    reference = of.solve(TRUTH)
    points = strengths(of, it, reference, Floor.of(of, reference), [-beta for beta in BETAS])
    slope, at = fitted_slope(points)
    assert slope == pytest.approx(1.0, abs=0.1)
    assert max(at) < 0


# what is compared


def test_errors_are_those_of_a_full_hessian() -> None:
    """Another implementation of the truth, and of the error, over two batches."""
    of, it = problem(), candidate()
    points = strengths(of, it, of.solve(TRUTH), Floor(1.0, 0.0, 0.0), [0.1])
    ours, theirs = [], []
    for state, target in of.states():
        state.reset("zeros")
        state.u[:] = equilibrium(of.network, state)
        wanted = implicit_gradient(of.network, state, of.cost, target)
        found = it.make().estimate(of.network, state, of.solver, of.cost, target).gradients
        ours += [g.flatten().clone() for g in found]
        theirs += [g.flatten() for g in wanted]
    ours, theirs = torch.cat(ours), torch.cat(theirs)
    error = float((ours - theirs).norm() / theirs.norm())
    assert points[0].error == pytest.approx(error, rel=1e-6)
    assert points[0].cosine == pytest.approx(float(torch.cosine_similarity(ours, theirs, 0)))


def test_the_noise_of_first_states_is_the_same_for_all() -> None:
    """From far away in few steps, everything depends on where a phase starts."""
    of = problem(solver=Euler(0.1, n_relax=3, init="normal"))
    first, again = of.solve(candidate().make()), of.solve(candidate().make())
    assert total(first.against(again, of.names)).relative_error == 0.0
    other = replace(of, seed=7).solve(candidate().make())
    assert total(first.against(other, of.names)).relative_error > 0.0
    (a, _), (b, _) = ((s.u[1].normal_(generator=s.generator), s) for s, _ in of.states())
    assert not torch.equal(a, b), "each batch has its own"


def test_more_steps_take_the_error_down_to_its_floor() -> None:
    of, it = problem(solver=Newton(n_relax=60, n_nudged=4)), candidate(beta=1e-3)
    reference = of.solve(TRUTH)
    points = steps(of, it, reference, Floor.of(of, reference), [1, 2, 4, 32])
    errors = [point.error for point in points]
    assert errors[0] > errors[1] > errors[2] > 10 * errors[3]
    assert points[-1].floor < 1e-3 * points[0].floor
    for point in points[:2]:  # what a residual makes of a gradient is known in size only
        assert 0.1 * point.error < point.floor < 10 * point.error
    assert of.solver.n_nudged == 4


# what limits it


def test_beta_limits_it() -> None:
    for kind, factor in ((EquilibriumPropagation, 2), (CenteredEquilibriumPropagation, 4)):
        name, evidence = limit(problem(), candidate(kind))
        assert name == "beta"
        assert evidence.error / evidence.half == pytest.approx(factor, rel=0.1)
        assert evidence.twice == pytest.approx(evidence.error)


def test_a_beta_so_large_that_half_of_it_is_no_better() -> None:
    name, evidence = limit(problem("gaussian"), candidate(beta=1e4))
    assert name == "beta"
    assert evidence.half > 0.9 * evidence.error
    assert evidence.smaller.setting == min(BETAS)


def test_steps_of_an_estimator_s_own_are_varied() -> None:
    """Conjugate gradients that are cut off."""
    it = Candidate("it", lambda steps=2: ImplicitDifferentiation(1e-13, steps), steps=2)
    name, evidence = limit(problem(), it)
    assert (name, "estimator.steps=2" in evidence.steps) == ("steps", True)
    reference = problem().solve(TRUTH)
    points = steps(problem(), it, reference, Floor.of(problem(), reference), [2, 4, 1000])
    assert points[0].error == evidence.error > 2 * points[1].error > 0.0
    assert points[2].error < 1e-9


@pytest.mark.parametrize("free", [3, 60])
def test_too_few_steps_limit_it(free: int) -> None:
    name, evidence = limit(problem(solver=Newton(n_relax=free, n_nudged=1)), candidate(beta=1e-3))
    assert name == "steps"
    assert evidence.twice < 0.6 * evidence.error
    assert "n_nudged=1" in evidence.steps


def test_a_tolerance_limits_it() -> None:
    solver = Newton(n_relax=60, n_nudged=60, tol=1e-4)
    name, evidence = limit(problem(solver=solver), candidate(beta=1e-3))
    assert (name, "tol=0" in evidence.steps) == ("steps", True)


def test_steps_that_swing_limit_it() -> None:
    """A floor that is all residual, and that neither more steps nor another strength lower."""
    swinging = Evidence(0.1, 0.1, 1e-9, 1e-8, 0.02, 0.02, half=0.1, twice=0.1, steps="n_nudged=4")
    found = judge(swinging, candidate(), 1, "float64")
    assert found.name == "steps"
    assert "lower dynamics.dt" in found.sentence
    assert judge(replace(swinging, rounding=0.5), candidate(), 1, "float64").name == "rounding"
    settling = replace(swinging, residual_after=0.002)  # then its floor is not what limits it
    assert judge(settling, candidate(), 1, "float64").name == "estimator"


def test_rounding_limits_it() -> None:
    of = problem()
    of.network.float()
    of = replace(of, batches=[(x.float(), y.float()) for x, y in of.batches])
    name, evidence = limit(of, candidate(CenteredEquilibriumPropagation, 1e-5))
    assert name == "rounding"
    assert evidence.half > evidence.error
    assert 0.03 * evidence.floor < evidence.error < 10 * evidence.floor


def test_kinks_limit_it() -> None:
    """So many units lie on either side of a kink that a nudge of any strength takes some over."""
    torch.manual_seed(0)
    layers = [((source, partial(Dense, units=n)),) for source, n in enumerate((60, 3))]
    network = graph(Hopfield(), "hard_sigmoid", (4,), layers)
    with torch.no_grad():
        network.W[0].weight.mul_(0.01)
        network.W[0].bias.copy_(torch.linspace(-0.03, 0.03, 60))
    of = replace(problem(n=1), network=network, batches=[cases.batch(network, 8)])
    for beta in (0.3, 0.1, 0.03):
        name, evidence = limit(of, candidate(CenteredEquilibriumPropagation, beta))
        assert name == "kink"
        assert 0.01 < evidence.moved < 0.5
        assert evidence.error < 3 * evidence.half, "of order 2 it would be 4"


def test_another_gradient_and_the_same_one() -> None:
    plain = Candidate("backprop", Backprop)
    assert limit(problem("hopfield"), plain)[0] == "estimator"
    assert limit(problem("gaussian"), plain)[0] == "nothing"


@pytest.mark.parametrize(("number", "words"), [(math.nan, "not finite; lower"), (0.0, "zero")])
def test_nothing_to_compare_says_why(number: float, words: str) -> None:
    one = total(compare(["w"], [torch.full((3,), number)], [torch.zeros(3)]))
    found = unknown(one, candidate())
    assert found.name == "unknown"
    assert words in found.sentence


# kinks


@pytest.mark.parametrize("kind", cases.KINDS)
def test_pieces_change_where_a_kink_is_crossed(kind: str) -> None:
    network = cases.network(kind, phi="hard_sigmoid")
    state = network.new_state(4)
    state.clamp(0, cases.batch(network)[0])
    inside, held, over = (torch.full_like(state.u[1], value) for value in (0.5, 1.0, 1.5))

    def at(value: torch.Tensor) -> torch.Tensor:
        state.u[1] = value
        state.forget()
        return next(pieces(network, state)).clone()

    if kind == "predictive_coding":  # its activation acts on the drive, which the bias moves
        with torch.no_grad():
            network.W[0].weight.zero_()
            codes = [at(network.W[0].bias.copy_(v[0]).expand_as(inside)) for v in (inside, over)]
        assert (codes[0] != codes[1]).all()
        return
    assert torch.equal(at(inside), at(inside + 0.1))
    assert (at(inside) != at(held)).all(), "a unit that is held there is on neither side"
    assert (at(held) != at(over)).all()


def test_maxima_of_pools_count() -> None:
    network = cases.network("hopfield", "max")
    assert share_moved(replace(problem(), network=network, batches=[cases.batch(network)]),
                       EquilibriumPropagation(2.0))  # fmt: skip
    assert share_moved(problem(), EquilibriumPropagation(2.0)) is None, "tanh has no kink"
