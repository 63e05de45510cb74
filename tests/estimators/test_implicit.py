"""Implicit differentiation: against the whole Hessian, finite differences and backpropagation."""

from __future__ import annotations

import logging

import pytest
import torch
from cases import KINDS, NETS, batch, network
from networks import COSTS, GRAPH, LOCALS, assert_close_lists, build, images, implicit_gradient

from eqprop import EnergyBasedModel, SquaredError
from eqprop.estimator import Backprop, ImplicitDifferentiation
from eqprop.estimator.implicit import conjugate_gradients, held_units
from eqprop.relaxation import Anderson, Euler, Newton, StopReason, Sweep
from eqprop.relaxation.recommended import recommended_solver

each_kind = pytest.mark.parametrize("kind", KINDS)
each_net = pytest.mark.parametrize("net", NETS)
each_cost = pytest.mark.parametrize("cost", sorted(COSTS))
IMPLICIT = ImplicitDifferentiation(tol=1e-12, max_iterations=500)


def relaxed(network, solver, x):
    """A state at its free equilibrium."""
    state = network.new_state(len(x))
    state.clamp(0, x)
    found = solver.free_phase(network, state)
    assert found.reason in (StopReason.EXACT, StopReason.CONVERGED)
    return state


def estimated(network, solver, x, y, cost=None, estimator=IMPLICIT, measure=False):
    state = network.new_state(len(x))
    state.clamp(0, x)
    return estimator.estimate(network, state, solver, cost or SquaredError(), y, measure=measure)


def tight(network, solver=recommended_solver):
    return solver(network, n_relax=3000, tol=1e-13)


def calm(kind, net, phi="tanh"):
    """With an equilibrium: of a max pool, not all have one that lies on no kink."""
    made = network(kind, net, phi)
    if kind == "rate_hopfield":
        with torch.no_grad():
            for edge in made.W:
                edge.weight.mul_(0.5)
    return made


def assert_slopes(network, solver, x, y, gradients):
    """Finite differences of the cost, each side relaxed anew, along directions in all weights."""
    width, parameters = 1e-5, [p.data for p in network.parameters()]
    for _ in range(2):
        along, ends = [torch.randn_like(p) for p in parameters], []
        for sign in (1.0, -1.0):
            for p, a in zip(parameters, along, strict=True):
                p.add_(a, alpha=sign * width)
            state = relaxed(network, solver, x)
            ends.append(SquaredError().cost(state.u[-1], y).mean())
            for p, a in zip(parameters, along, strict=True):
                p.sub_(a, alpha=sign * width)
        wanted = (ends[0] - ends[1]) / (2 * width)
        found = sum((g * a).sum() for g, a in zip(gradients, along, strict=True))
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)


@each_kind
@each_net
@each_cost
def test_as_by_the_whole_hessian(kind, net, cost):
    made, cost = calm(kind, net), COSTS[cost]()
    x, y = batch(made)
    found = estimated(made, tight(made), x, y, cost, measure=True)
    state = relaxed(made, tight(made), x)
    assert_close_lists(found.gradients, implicit_gradient(made, state, cost, y))
    torch.testing.assert_close(found.output, state.u[-1])
    assert found.metrics["implicit/residual"] < 1e-11
    assert found.metrics["implicit/saddles"] == 0.0
    assert 1 < found.metrics["implicit/iterations"] < 100


@each_kind
@each_net
@pytest.mark.parametrize("phi", ["tanh", "relu", "hard_sigmoid"])
def test_the_slope_of_the_cost(kind, net, phi):
    made = calm(kind, net, phi)
    x, y = batch(made)
    solver = tight(made)
    if kind == "rate_hopfield" and phi != "tanh":
        assert any(held.any() for held in held_units(made, relaxed(made, solver, x), solver))
    assert_slopes(made, solver, x, y, estimated(made, solver, x, y).gradients)


@pytest.mark.parametrize("phi", ["hard_sigmoid", "relu6"])
def test_units_at_kinks_that_newton_steps_find(phi):
    """Some lie between the ends, some are held at either of them."""
    made = network("hopfield", "dense", phi, seed=3)
    with torch.no_grad():
        for edge in made.W:
            edge.weight.mul_(1.5)
    x, y = batch(made, 8)
    x, solver = 4.0 * x, Newton(n_relax=3000, tol=1e-13)
    state = relaxed(made, solver, x)
    low, high = made.phi[1].range
    held = held_units(made, state, solver)
    for where, u in zip(held[:-1], state.u[1:-1], strict=True):
        assert torch.equal(where, (u == low) | (u == high))
    assert {float(u) for u in state.u[1][held[0]]} == {low, high}
    assert not held[0].all()
    assert_slopes(made, solver, x, y, estimated(made, solver, x, y).gradients)


@pytest.mark.parametrize("kind", ["hopfield", "rate_hopfield"])
def test_units_that_a_solver_keeps_in_bounds(kind):
    made = calm(kind, "dense")
    x, y = batch(made)
    solver = Euler(0.2, n_relax=3000, tol=1e-13, clip=[-0.3, 0.3])
    held = held_units(made, relaxed(made, solver, x), solver)
    share = torch.cat(held, 1).double().mean()
    assert 0.2 < share < 0.95
    assert_slopes(made, solver, x, y, estimated(made, solver, x, y).gradients)


def test_rates_next_to_an_end_are_held():
    """There, φ⁻¹ is cut off: autograd sees no curvature where it is largest."""
    made = calm("rate_hopfield", "dense")
    with torch.no_grad():
        made.W[0].weight[0] = 0.0
        made.W[0].bias[0] = 18.6  # where tanh is the last number before 1, or that before it
    x, y = batch(made)
    solver = Sweep("projected", "even_odd", 200)
    state = made.new_state(len(x))
    state.clamp(0, x)
    solver.free_phase(made, state)
    beside = state.u[1][:, 0] < 1.0
    assert beside.any()
    held = held_units(made, state, solver)
    assert held[0].nonzero().tolist() == [[i, 0] for i in range(len(x))]
    found = estimated(made, solver, x, y, measure=True)
    assert found.metrics["implicit/saddles"] == 0.0
    assert not found.gradients[0][0].any()


@pytest.mark.parametrize("kind", ["gaussian", "predictive_coding"])
@each_net
@each_cost
@pytest.mark.parametrize("phi", ["tanh", "relu"])
def test_of_a_feed_forward_pass_it_is_backpropagation(kind, net, cost, phi):
    made, cost = network(kind, net, phi), COSTS[cost]()
    x, y = batch(made)
    found = estimated(made, Newton(), x, y, cost)
    assert found.phases["free"].reason is StopReason.EXACT
    wanted = estimated(made, Newton(), x, y, cost, Backprop())
    assert_close_lists(found.gradients, wanted.gradients)
    torch.testing.assert_close(found.output, wanted.output)


@each_kind
@pytest.mark.parametrize("phi", ["sigmoid", "softplus", "leaky_relu", torch.sin])
def test_edges_around_layers_and_other_activations(kind, phi):
    """Two edges into a layer, an output of its own, convolutions with a skip."""
    if kind == "rate_hopfield" and phi in ("softplus", torch.sin):
        phi = "tanh"
    mixed = ["identity", phi, "tanh", "sigmoid"]
    smooth = phi if kind in ("gaussian", "predictive_coding") else "sigmoid"
    for made in (build(LOCALS[kind](), mixed, GRAPH), images(LOCALS[kind](), smooth)):
        with torch.no_grad():
            for p in made.parameters():
                p.mul_(0.25)
        x, y = batch(made)
        state = relaxed(made, tight(made), x)
        wanted = implicit_gradient(made, state, SquaredError(), y)
        assert_close_lists(estimated(made, tight(made), x, y).gradients, wanted)


def test_a_soft_pool():
    made = calm("hopfield", "soft")
    x, y = batch(made)
    assert_slopes(made, tight(made), x, y, estimated(made, tight(made), x, y).gradients)


@each_kind
@pytest.mark.parametrize("solver", [Newton, Euler, Anderson])
def test_any_solver_that_gets_there(kind, solver):
    made = calm(kind, "dense", "sigmoid")
    x, y = batch(made)
    wanted = estimated(made, tight(made), x, y).gradients
    how = {} if solver is Newton else {"dt": 0.02}
    slow = solver(n_relax=9000, tol=1e-12, init="zeros", **how)
    assert_close_lists(estimated(made, slow, x, y).gradients, wanted, rtol=1e-6, atol=1e-9)


class Whole(EnergyBasedModel):
    """A Hopfield energy, known as a whole."""

    def energy(self, u):
        r = [phi(layer) for phi, layer in zip(self.phi, u, strict=True)]
        drives = [edge(rate) for edge, rate in zip(self.W, r[:-1], strict=True)]
        own = sum(0.5 * (layer**2).sum(1) for layer in u[1:])
        return own - sum((a * b).sum(1) for a, b in zip(r[1:], drives, strict=True))


def test_an_energy_given_as_a_whole():
    made = network("hopfield", "dense")
    twin = Whole([4, 6, 5, 3], SquaredError(), 4, ["tanh", "tanh", "identity"]).double()
    twin.load_state_dict(made.state_dict())
    x, y = batch(made)
    euler = Euler(0.2, n_relax=3000, tol=1e-13)
    wanted = estimated(made, tight(made), x, y).gradients
    assert_close_lists(estimated(twin, euler, x, y).gradients, wanted)


def test_in_single_precision():
    made = network("hopfield", "max")
    x, y = batch(made)
    wanted = estimated(made, tight(made), x, y).gradients
    made.float()
    solver = recommended_solver(made, n_relax=200)
    found = estimated(made, solver, x.float(), y, estimator=ImplicitDifferentiation())
    assert all(g.dtype == torch.float32 for g in found.gradients)
    assert_close_lists([g.double() for g in found.gradients], wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("estimator", [IMPLICIT, Backprop()])
def test_gradients_lie_in_memory_as_their_parameters(estimator):
    """Fused optimizers go through both in the same order."""
    made = network("predictive_coding", "max")
    made.use_channels_last()
    x, y = batch(made)
    found = estimated(made, Newton(), x, y, estimator=estimator).gradients
    assert [g.stride() for g in found] == [p.stride() for p in made.parameters()]


def test_measuring_changes_no_number_and_names_its_metrics():
    made = network("hopfield", "dense")
    x, y = batch(made)
    solver = Newton(n_relax=20)
    plain, measured = (estimated(made, solver, x, y, measure=m) for m in (False, True))
    assert_close_lists(measured.gradients, plain.gradients, rtol=0, atol=0)
    assert plain.metrics == {}
    names = {"energy/free", "cost/free", "relaxation/free_steps", "relaxation/free_residual"}
    assert set(measured.metrics) >= names | {"implicit/residual", "implicit/iterations"}


# ------------------------------------------------------------- the equations


def systems(n=4, size=12):
    """Symmetric positive definite matrices with their diagonals, and right-hand sides."""
    root = torch.randn(n, size, size, dtype=torch.float64)
    A = root @ root.mT + torch.diag_embed(10.0 ** torch.linspace(-1, 4, size).double())
    return A, A.diagonal(dim1=1, dim2=2), torch.randn(n, size, dtype=torch.float64)


def solved(A, diagonal, b, tol=1e-12, max_iterations=100):
    return conjugate_gradients(
        lambda v: torch.einsum("bij,bj->bi", A, v), b, diagonal, tol, max_iterations
    )


def test_conjugate_gradients_solve_each_sample():
    A, diagonal, b = systems()
    b[2] = 0.0
    found = solved(A, diagonal, b)
    torch.testing.assert_close(found.x, torch.linalg.solve(A, b))
    assert found.converged.all()
    assert not found.saddle.any()
    alone = solved(A[1:2], diagonal[1:2], b[1:2])
    torch.testing.assert_close(alone.x[0], found.x[1])


def test_the_preconditioner_saves_iterations():
    A, diagonal, b = systems()
    assert solved(A, diagonal, b).iterations < solved(A, torch.ones_like(b), b).iterations


def test_a_saddle_leaves_the_other_samples_alone():
    A, diagonal, b = systems()
    wanted = torch.linalg.solve(A, b)
    A[1] -= 1.2 * A[1].mean() * torch.ones_like(A[1]) + 30.0 * torch.eye(len(A[1]))
    assert torch.linalg.eigvalsh(A[1])[0] < 0
    found = solved(A, diagonal, b)
    assert found.saddle.tolist() == [False, True, False, False]
    assert found.converged.tolist() == [True, False, True, True]
    torch.testing.assert_close(found.x[[0, 2, 3]], wanted[[0, 2, 3]])


@pytest.mark.parametrize("max_iterations", [1, 3, 8])
def test_the_residual_is_that_of_the_equations(max_iterations):
    """Never above 1, which no iteration at all has; on a singular matrix, too."""
    A, diagonal, b = systems()
    A[0] = 0.0
    found = solved(A, diagonal, b, max_iterations=max_iterations)
    left = torch.linalg.vector_norm(b - torch.einsum("bij,bj->bi", A, found.x), dim=1)
    torch.testing.assert_close(found.residual, left / torch.linalg.vector_norm(b, dim=1))
    assert (found.residual <= 1.0).all()
    assert found.saddle.tolist() == [True, False, False, False]
    assert found.metrics()["implicit/residual"] == float(found.residual.max())


@pytest.mark.parametrize(
    ("weights", "most", "words"), [(1.0, 2, "max_iterations"), (4.0, 200, "no minimum")]
)
def test_what_is_not_solved_is_said_once(weights, most, words, caplog):
    """With weights that large, the energy of linear units has no minimum."""
    made = network("hopfield", "dense", "identity")
    with torch.no_grad():
        for edge in made.W:
            edge.weight.mul_(weights)
    x, y = batch(made)
    estimator = ImplicitDifferentiation(max_iterations=most)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = estimated(made, Newton(), x, y, estimator=estimator, measure=True)
    assert [words in record.message for record in caplog.records] == [True]
    assert 1e-6 < found.metrics["implicit/residual"] <= 1.0
    assert all(g.isfinite().all() for g in found.gradients)
