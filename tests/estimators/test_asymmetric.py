"""Feedback weights of their own: the field that layers follow, and the gradient that fits it.

The truth is dC/dθ = −λ · ∂V/∂θ with Jᵀλ = ∂C/∂u at the free equilibrium, J a dense Jacobian of V.
"""

from __future__ import annotations

import logging
import math
from functools import partial
from itertools import pairwise

import cases
import pytest
import torch
from cases import KINDS, NETS, batch
from networks import (
    LOCALS,
    assert_close_lists,
    gradient_by_autograd,
    random_nudge,
    random_state,
    weight_gradient,
    weights_by_autograd,
)
from networks import Conv as ByFunction
from torch import Tensor

from eqprop.estimator import (
    AsymmetricEquilibriumPropagation,
    Backprop,
    BackpropThroughTime,
    EquilibriumPropagation,
    ImplicitDifferentiation,
)
from eqprop.estimator.implicit import held_units
from eqprop.network import (
    Conv,
    Dense,
    EnergyBasedModel,
    Hopfield,
    Identity,
    Network,
    Skip,
    SquaredError,
    chain,
)
from eqprop.relaxation import (
    Anderson,
    Euler,
    Exact,
    Newton,
    Solver,
    Sweep,
    compiled,
    recommended_solver,
)
from eqprop.training.optimizer import by_layer

each_kind = pytest.mark.parametrize("kind", KINDS)
each_net = pytest.mark.parametrize("net", NETS)
SOLVERS = {
    "euler": lambda: Euler(0.2, 1.0, 3000, tol=1e-12, init="zeros"),
    "clipped": lambda: Euler(0.2, 1.0, 3000, tol=1e-12, init="zeros", clip="auto"),
    "newton": lambda: Newton(n_relax=300, n_nudged=300, tol=1e-12),
    "projected": lambda: Sweep("projected", "even_odd", 300, 300, tol=1e-12),
    "exact": lambda: Exact(n_relax=300, tol=1e-12),
    "anderson": lambda: Anderson(0.2, n_relax=500, tol=1e-12, init="zeros"),
}

BY = [
    *(("euler", kind, "tanh") for kind in ("gaussian", "hopfield")),
    *(("clipped", kind, "hard_sigmoid") for kind in ("hopfield", "rate_hopfield")),
    *(("newton", kind, "hard_sigmoid") for kind in KINDS),
    *(("projected", kind, "hard_sigmoid") for kind in KINDS if kind != "gaussian"),
    *(("projected", "predictive_coding", "relu"), ("projected", "rate_hopfield", "tanh")),
    *(("exact", "hopfield", "hard_sigmoid"), ("exact", "rate_hopfield", "sigmoid")),
    ("anderson", "hopfield", "tanh"),
]


def network(
    kind: str, net: str = "dense", phi: str = "tanh", feedback: str = "fixed", seed: int = 3
) -> Network:
    """As ``cases.network``, and with feedback weights.

    With max pools the field jumps where another pixel becomes the largest, so that there may be no
    equilibrium: Hopfield networks of this seed have one.
    """
    torch.manual_seed(seed)
    conv = partial(Conv, channels=3, kernel=3, padding=1, pool=net)
    shape, hidden = ((4,), [6, 5]) if net == "dense" else ((2, 8, 8), [conv, conv])
    phis = ["identity", phi, phi, "identity"]
    keys = {"feedback": feedback, "gain": 1.5}
    return chain(LOCALS[kind], shape, hidden, 3, phis, SquaredError(), 4, **keys).double()


def grid(feedback: str, seed: int = 0) -> Network:
    """Pictures with a soft pool, skips of both kinds and an edge known by its function."""
    torch.manual_seed(seed)
    hidden = [
        partial(Conv, channels=2, kernel=3, padding=1),
        partial(Conv, channels=3, kernel=3, padding=1, pool="soft"),
        partial(ByFunction, channels=3),
    ]
    skips = [Skip(2, 3, Identity), Skip(1, 3, partial(Conv, channels=3, kernel=1, stride=2))]
    skips[1] = skips[1]._replace(make=partial(skips[1].make, bias=False))
    phis = ["identity", "tanh", "tanh", "tanh", "identity"]
    keys = {"skips": skips, "feedback": feedback}
    return chain(Hopfield, (2, 4, 4), hidden, 3, phis, SquaredError(), 4, **keys).double()


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.detach().flatten() for t in tensors])


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def truth(net: Network, solver: Solver, x: Tensor, y: Tensor, transposed: bool = True) -> Tensor:
    """dC/dθ; with J in the place of Jᵀ what the uncorrected phase finds."""
    state = net.new_state(len(x))
    state.clamp(0, x)
    solver.free_phase(net, state)
    free = ~flat(held_units(net, state, solver))
    u = [layer.clone().requires_grad_(i > 0) for i, layer in enumerate(state.u)]
    field = torch.cat([v.flatten() for v in net.field(u)])
    assert float(field.detach()[free].abs().max()) < 1e-9
    rows = [torch.autograd.grad(v, u[1:], retain_graph=True, materialize_grads=True) for v in field]
    jacobian = torch.stack([flat(row) for row in rows])[free][:, free]
    slope = torch.autograd.grad(SquaredError().cost(u[-1], y).mean(), u[1:], materialize_grads=True)
    adjoint = torch.zeros_like(field)
    adjoint[free] = torch.linalg.solve(jacobian.T if transposed else jacobian, flat(slope)[free])
    parameters = list(net.parameters())
    return -flat(torch.autograd.grad(field @ adjoint, parameters, materialize_grads=True))


def estimated(estimator, net: Network, solver: Solver, x: Tensor, y: Tensor) -> Tensor:
    state = net.new_state(len(x))
    state.clamp(0, x)
    return flat(estimator.estimate(net, state, solver, SquaredError(), y).gradients)


def errors(betas, net: Network, solver: Solver, **how) -> list[float]:
    x, y = batch(net)
    exact = truth(net, solver, x, y, transposed=how.get("corrected", True))
    found = [
        estimated(AsymmetricEquilibriumPropagation(beta, **how), net, solver, x, y)
        for beta in betas
    ]
    return [float((g - exact).norm() / exact.norm()) for g in found]


# ---------------------------------------------------------------------- the field


@each_kind
@each_net
def test_without_feedback_weights_the_field_is_minus_the_energy_s_gradient(kind, net):
    """Value, Jacobian and derivative by the parameters."""
    model = cases.network(kind, net)
    u = [layer.requires_grad_() for layer in map(Tensor.clone, random_state(model).u)]
    slopes = torch.autograd.grad(model.energy(u).sum(), u[1:], create_graph=True)
    field = model.field(u)
    assert_close_lists(field, [-g for g in slopes])
    along = [torch.randn_like(v) for v in field]
    leaves = [*u, *model.parameters()]
    found = torch.autograd.grad(field, leaves, along, materialize_grads=True)
    wanted = torch.autograd.grad(slopes, leaves, along, materialize_grads=True)
    assert_close_lists(found, [-g for g in wanted])


@each_kind
@each_net
@pytest.mark.parametrize("phi", ["tanh", "hard_sigmoid"])
def test_with_them_it_is_what_the_layers_follow(kind, net, phi):
    model = network(kind, net, phi)
    state = random_state(model)
    assert_close_lists(model.field(state.u), [-g for g in model.gradient(state)[1:]])
    other = [-g for g in gradient_by_autograd(model, state.u)]
    assert (model.field(state.u)[0] - other[1]).abs().max() > 1e-3


def test_through_soft_pools_skips_and_edges_known_by_their_function():
    model = grid("fixed")
    assert [edge.feedback is not None for edge in model.edges] == [0, 1, 1, 1, 0, 1]
    state = random_state(model)
    assert_close_lists(model.field(state.u), [-g for g in model.gradient(state)[1:]])


def test_of_an_energy_given_as_a_whole_it_is_that_one_s():
    class Own(EnergyBasedModel):
        def energy(self, u):
            return (u[1] - self.W[0](u[0])).square().sum(1) + u[1].prod(1) * self.W[1](u[1])[:, 0]

    model = Own([3, 4, 2], SquaredError(), 3, ["tanh"] * 2).double()
    field = model.field(model.u)
    assert_close_lists(field, [-g for g in model.gradient(model.state)[1:]])


@pytest.mark.parametrize("make", [lambda: network("gaussian"), lambda: grid("learned")])
def test_its_derivatives_are_finite_differences(make):
    model = make()
    state = random_state(model, batch=1)
    leaves = [layer.clone().requires_grad_() for layer in state.u[1:]]
    assert torch.autograd.gradcheck(
        lambda *u: tuple(model.field([state.u[0], *u])), leaves, fast_mode=True
    )


def test_of_a_dense_hopfield_chain_by_hand():
    """V_l = −u_l + φ'(u_l) (W_{l−1} r_{l−1} + b_{l−1} + B_lᵀ r_{l+1})."""
    model = network("hopfield")
    u = random_state(model).u
    r = [u[0], u[1].tanh(), u[2].tanh(), u[3]]
    back = [e.back.weight for e in model.edges]
    assert back[0] is model.edges[0].weight
    drive = [x @ e.weight.T + e.bias for x, e in zip(r, model.edges, strict=False)]
    pressure = [drive[0] + r[2] @ back[1], drive[1] + r[3] @ back[2], drive[2]]
    slopes = [1 - r[1] ** 2, 1 - r[2] ** 2, 1.0]
    wanted = [s * p - x for s, p, x in zip(slopes, pressure, u[1:], strict=True)]
    assert_close_lists(model.field(u), wanted)


@pytest.mark.parametrize("kind", ["hopfield", "predictive_coding"])
def test_a_step_as_a_function_is_the_step(kind):
    model, nudge = network(kind, phi="hard_sigmoid"), None
    for make in (SOLVERS["euler"], SOLVERS["newton"], SOLVERS["projected"]):
        solver, state = make(), random_state(model, batch=4)
        nudge = random_nudge(model, batch=4)
        with torch.no_grad():
            found = solver.next(model, [layer.clone() for layer in state.u], nudge)
            solver.step(model, state, nudge)
        assert_close_lists(found, state.u)


# ---------------------------------------------------------------------- the weights


def test_what_is_drawn():
    """After all forward weights, so that those of a seed stay; as they are, times the gain."""
    kinds = "symmetric", "fixed", "learned"
    plain, fixed, learned = (network("hopfield", feedback=kind) for kind in kinds)
    names = dict(plain.named_parameters())
    assert dict(fixed.named_parameters()).keys() == names.keys()
    for model in (fixed, learned):
        assert all(torch.equal(p, dict(model.named_parameters())[n]) for n, p in names.items())
    drawn = {n: t for n, t in fixed.state_dict().items() if n not in names}
    assert {n: tuple(t.shape) for n, t in drawn.items()} == {
        "W.1.feedback.weight": (5, 6),
        "W.2.feedback.weight": (3, 5),
    }
    for name, tensor in drawn.items():
        own = dict(learned.named_parameters())[name]
        assert torch.equal(own, tensor)
        bound = 1.5 / math.sqrt(tensor.shape[1])
        assert 0.8 * bound < float(tensor.abs().max()) <= bound
        assert not torch.equal(tensor, names[name.replace("feedback.", "")])


@pytest.mark.parametrize("feedback", ["fixed", "learned"])
@pytest.mark.parametrize("make", [network, lambda kind, feedback: grid(feedback)])
def test_a_contrast_of_energies_moves_them_as_the_weights_beside_them(make, feedback):
    model = make("hopfield", feedback=feedback)
    state = random_state(model)
    named = [name for name, _ in model.named_parameters()]
    found = dict(zip(named, weight_gradient(model, state), strict=True))
    wanted = dict(zip(named, weights_by_autograd(model, state.u), strict=True))
    assert any("feedback" in name for name in named) == (feedback == "learned")
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name.replace("feedback.", "")])


def test_they_have_the_rate_of_the_edge_that_they_belong_to():
    model = network("hopfield", feedback="learned")
    groups = by_layer(model, [0.1, 0.2, 0.3])
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert {rates[id(e.weight)] == rates[id(e.back.weight)] for e in model.edges} == {True}


def test_backprop_knows_nothing_of_them():
    x, y = batch(network("gaussian"))
    plain, own = (
        estimated(Backprop(), network("gaussian", feedback=f), Newton(), x, y)
        for f in ("symmetric", "fixed")
    )
    assert torch.equal(plain, own)


def test_the_compiled_loops_stand_aside():
    torch.manual_seed(0)
    loops = {
        f: compiled.fits(
            chain(Hopfield, (4,), [6], 3, ["sigmoid"] * 3, SquaredError(), 4, feedback=f)
        )
        for f in ("symmetric", "fixed")
    }
    assert loops == {"symmetric": True, "fixed": False}


def test_what_needs_an_energy_is_refused():
    with pytest.raises(ValueError, match=r"dynamics\.adaptive=true: .*model\.feedback"):
        Euler(adaptive=True).check(network("hopfield"))
    Euler(adaptive=True).check(network("hopfield", feedback="symmetric"))


# ---------------------------------------------------------------------- the gradient


@each_kind
@each_net
def test_the_error_is_of_order_beta(kind, net):
    model = network(kind, net)
    solver = recommended_solver(model, n_relax=300, n_nudged=300, tol=1e-12)
    found = errors([0.02, 0.01], model, solver)
    assert math.log2(found[0] / found[1]) == pytest.approx(1.0, abs=0.05)
    assert found[1] < 0.05


@pytest.mark.parametrize(("name", "kind", "phi"), BY)
def test_by_every_solver(name, kind, phi):
    """Units that a kink or a bound holds have not moved."""
    found = errors([2e-3, 1e-3], network(kind, phi=phi), SOLVERS[name]())
    assert math.log2(found[0] / found[1]) == pytest.approx(1.0, abs=0.05)
    assert found[1] < 0.01


def test_without_the_correction_it_is_the_vector_field_s():
    """(u^β − u⁰)/β is then J⁻¹ ∂C/∂u, and what it gives is the gradient of no cost."""
    model = network("hopfield")
    found = errors([0.02, 0.01], model, SOLVERS["newton"](), corrected=False)
    assert math.log2(found[0] / found[1]) == pytest.approx(1.0, abs=0.05)


@each_kind
@each_net
def test_it_points_along_the_truth_where_plain_propagation_does_not(kind, net):
    model = network(kind, net)
    solver = recommended_solver(model, n_relax=300, n_nudged=300, tol=1e-12)
    x, y = batch(model)
    exact = truth(model, solver, x, y)
    found = estimated(AsymmetricEquilibriumPropagation(0.01), model, solver, x, y)
    plain = estimated(EquilibriumPropagation(0.01), model, solver, x, y)
    implicit = estimated(ImplicitDifferentiation(1e-10), model, solver, x, y)
    assert cosine(found, exact) > 0.99
    assert cosine(plain, exact) < 0.97
    first = model.edges[0].weight.numel()
    assert cosine(found[:first], exact[:first]) > 0.99
    assert cosine(plain[:first], exact[:first]) < 0.8
    torch.testing.assert_close(implicit, exact, atol=1e-8, rtol=0)


def test_feedback_weights_that_learn_have_the_gradient_of_the_cost():
    model = network("hopfield", feedback="learned")
    x, y = batch(model)
    exact = truth(model, SOLVERS["newton"](), x, y)
    found = estimated(AsymmetricEquilibriumPropagation(1e-4), model, SOLVERS["newton"](), x, y)
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-3)


@each_kind
def test_backpropagation_through_time_goes_through_them(kind):
    model, solver = network(kind), Newton(n_relax=120)
    x, y = batch(model)
    found = estimated(BackpropThroughTime(60), model, solver, x, y)
    torch.testing.assert_close(found, truth(model, solver, x, y), atol=1e-7, rtol=0)


@each_kind
def test_of_the_same_weights_it_is_one_sided_propagation_up_to_beta(kind, caplog):
    """The nudged state is the same; the contrast is linear in it, so that they differ by O(β)."""
    model = cases.network(kind)
    x, y = batch(model)
    solver, differences = recommended_solver(model, n_relax=300, n_nudged=300, tol=1e-12), []
    with caplog.at_level(logging.INFO):
        AsymmetricEquilibriumPropagation().check(model)
        AsymmetricEquilibriumPropagation().check(network("hopfield"))
    assert [r.message.count("model.feedback=fixed") for r in caplog.records] == [1]
    for beta in (0.01, 0.005, 0.0025):
        states, gradients = [], []
        for kind_of in (EquilibriumPropagation, AsymmetricEquilibriumPropagation):
            state = model.new_state(4)
            state.clamp(0, x)
            found = kind_of(beta).estimate(model, state, solver, SquaredError(), y)
            gradients.append(flat(found.gradients))
            states.append([layer.clone() for layer in state.u])
        assert_close_lists(*states, rtol=0, atol=0)
        differences.append(float((gradients[0] - gradients[1]).norm()))
    assert [math.log2(a / b) for a, b in pairwise(differences)] == pytest.approx([1, 1], abs=0.05)


def test_dense_edges_and_metrics_are_those_of_any_estimator():
    model = network("gaussian")
    assert all(type(edge) is Dense for edge in model.edges)
    x, y = batch(model)
    state = model.new_state(4)
    state.clamp(0, x)
    estimator = AsymmetricEquilibriumPropagation(0.1)
    parts = model, state, SOLVERS["newton"](), SquaredError(), y
    found = estimator.estimate(*parts, measure=True)
    plain = EquilibriumPropagation(0.1).estimate(*parts, measure=True)
    assert found.metrics.keys() == plain.metrics.keys()
    assert found.phases["nudged"].residual < 1e-11
    torch.testing.assert_close(found.output, model.feed_forward_output(x).detach())
