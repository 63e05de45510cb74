"""Numbers for `Contrast`: the order of each bias, random signs, and complex states.

The truth is implicit differentiation by a full Hessian; every phase is relaxed to convergence.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import cases
import pytest
import torch
from networks import COSTS, LOCALS, gradient_by_autograd, graph, implicit_gradient
from torch import Tensor

from eqprop.estimator import (
    CenteredEquilibriumPropagation,
    Contrast,
    EquilibriumPropagation,
    FourPointEquilibriumPropagation,
    HolomorphicEquilibriumPropagation,
    RandomSignEquilibriumPropagation,
)
from eqprop.estimator.estimator import nudged
from eqprop.network import (
    ACTIVATIONS,
    CEnergy,
    ConditionalGaussian,
    Continuation,
    Conv,
    CrossEntropy,
    Dense,
    Network,
    Nudge,
    SquaredError,
    State,
)
from eqprop.network.activation import Activation, Sigmoid
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

Ready = tuple[Network, State, Solver, Any, Tensor]
each_kind = pytest.mark.parametrize("kind", cases.KINDS)
each_smooth_net = pytest.mark.parametrize("net", ["dense", "average"])
ANALYTIC = [name for name, phi in ACTIVATIONS.items() if phi.analytic]


def flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def ready(network: Network, cost: Any, solver: Solver | None = None, n: int = 2) -> Ready:
    """What ``estimate`` is given, the free phase relaxed."""
    x, y = cases.batch(network, n)
    state = network.new_state(n, torch.Generator().manual_seed(0))
    state.clamp(0, x)
    solver = solver or recommended_solver(network, n_relax=300, n_nudged=300, tol=1e-12)
    solver.free_phase(network, state)
    return network, state, solver, cost, y


@cache
def case(kind: str, net: str, phi: str) -> tuple[Ready, Tensor]:
    """A network of `cases` with the squared error, and the gradient of that."""
    made = ready(cases.network(kind, net, phi, seed=3), SquaredError())
    network, state, _, cost, y = made
    return made, flat(implicit_gradient(network, state, cost, y))


def estimated(estimator: Contrast, made: Ready) -> Tensor:
    network, state, solver, cost, y = made
    return flat(estimator.estimate(network, state, solver, cost, y).gradients)


def slope(found: Callable[[float], Tensor], exact: Tensor, beta: float) -> float:
    errors = [float((found(b) - exact).norm()) for b in (beta, beta / 2)]
    assert errors[0] < 0.1 * float(exact.norm())
    return math.log2(errors[0] / errors[1])


# ---------------------------------------------------------------------- orders

MAKERS: dict[str, tuple[Callable[[float], Contrast], float, int]] = {
    "ep": (EquilibriumPropagation, 0.01, 1),
    "ep_negative": (lambda beta: EquilibriumPropagation(-beta), 0.01, 1),
    "ep_centered": (CenteredEquilibriumPropagation, 0.02, 2),
    "ep_fourpoint": (FourPointEquilibriumPropagation, 0.04, 4),
    "holomorphic_2": (lambda r: HolomorphicEquilibriumPropagation(r, 2), 0.02, 2),
    "holomorphic_3": (lambda r: HolomorphicEquilibriumPropagation(r, 3), 0.05, 3),
    "holomorphic_4": (lambda r: HolomorphicEquilibriumPropagation(r, 4), 0.06, 4),
    "holomorphic_6": (lambda r: HolomorphicEquilibriumPropagation(r, 6), 0.15, 6),
}
ORDERS = [
    (name, net)
    for name, net in itertools.product(MAKERS, cases.NETS)
    if net != "max" or not name.startswith("holo")
]


@each_kind
@pytest.mark.parametrize(("name", "net"), ORDERS)
def test_the_bias_is_of_the_order_that_it_should(kind: str, name: str, net: str) -> None:
    """No arg-max of a pool changes between nudges as small as these."""
    make, beta, order = MAKERS[name]
    made, exact = case(kind, net, "sigmoid")
    found = slope(lambda b: estimated(make(b), made), exact, beta)
    assert found == pytest.approx(order, abs=0.1)


@each_kind
@each_smooth_net
def test_of_tanh_networks(kind: str, net: str) -> None:
    made, exact = case(kind, net, "tanh")
    found = slope(lambda r: estimated(HolomorphicEquilibriumPropagation(r), made), exact, 0.05)
    assert found == pytest.approx(4, abs=0.1)


class Signed(RandomSignEquilibriumPropagation):
    """Of the sign that the test chooses."""

    def __init__(self, beta: float, sign: float) -> None:
        super().__init__(beta, "example")
        self.sign = sign

    def drawn(self, state: State) -> Any:
        both = super().drawn(state)
        scale = self.sign / (both[1][0] / self.beta)
        return [tuple(number * scale for number in pair) for pair in both]


@each_kind
@pytest.mark.parametrize("net", cases.NETS)
def test_the_mean_of_both_signs_is_of_second_order(kind: str, net: str) -> None:
    made, exact = case(kind, net, "sigmoid")

    def mean(beta: float) -> Tensor:
        return (estimated(Signed(beta, 1.0), made) + estimated(Signed(beta, -1.0), made)) / 2

    assert slope(mean, exact, 0.02) == pytest.approx(2, abs=0.1)
    one = estimated(EquilibriumPropagation(0.02), made)
    torch.testing.assert_close(estimated(Signed(0.02, 1.0), made), one, rtol=0, atol=1e-9)


# ---------------------------------------------------------------------- random signs


@pytest.mark.parametrize("per", ["batch", "example"])
def test_signs_are_the_generators(per: Any) -> None:
    state = ready(cases.network("gaussian"), SquaredError(), n=64)[1]
    estimator = RandomSignEquilibriumPropagation(0.5, per)

    def draws() -> list[Tensor]:
        return [torch.as_tensor(estimator.drawn(state)[1][0]) for _ in range(12)]

    before = state.generator.get_state()
    found = draws()
    assert {float(b) for b in torch.stack(found).flatten()} == {0.5, -0.5}
    assert all(b.shape == ((64,) if per == "example" else ()) for b in found)
    if per == "example":
        assert all(len(set(b.tolist())) == 2 for b in found)
    torch.manual_seed(7)  # torch's own is not in use
    state.generator.set_state(before)
    assert all(torch.equal(a, b) for a, b in zip(found, draws(), strict=True))


@pytest.mark.parametrize("per", ["batch", "example"])
def test_many_draws_average_to_the_centered_estimate(per: Any) -> None:
    """Within 5 standard errors of a mean of ± half the difference of both signs."""
    made = ready(cases.network("gaussian", phi="sigmoid"), SquaredError(), Newton(), n=8)
    estimator, n = RandomSignEquilibriumPropagation(0.5, per), 100
    mean = torch.stack([estimated(estimator, made) for _ in range(n)]).mean(0)
    wanted = estimated(CenteredEquilibriumPropagation(0.5), made)
    spread = (estimated(EquilibriumPropagation(0.5), made) - wanted).norm()
    few = math.sqrt(8) if per == "example" else 1.0  # independent signs
    assert (mean - wanted).norm() < 5 * 2 * spread / (few * math.sqrt(n))
    assert (mean - wanted).norm() < 0.5 * spread


PULLS = [
    *itertools.product(("euler", "newton"), cases.KINDS, COSTS),
    *itertools.product(["projected"], ("hopfield", "predictive_coding", "rate_hopfield"), COSTS),
    *itertools.product(["exact"], ("hopfield", "rate_hopfield"), ["squared_error"]),
]
"""Every rule with the energies and costs that it has a closed form for."""


@pytest.mark.parametrize("net", cases.NETS)
@pytest.mark.parametrize(("rule", "kind", "cost"), PULLS)
def test_a_strength_for_each_example(kind: str, net: str, rule: Any, cost: str) -> None:
    """A batch with both signs is each example alone with its own, by every rule."""
    projection = rule in ("exact", "projected") and "hopfield" in kind
    network = cases.network(kind, net, "hard_sigmoid" if projection else "tanh")
    solver = Euler(0.2, n_relax=6) if rule == "euler" else Sweep(rule, "even_odd", 6, init="zeros")
    x, y = cases.batch(network, 3)
    beta = torch.tensor([0.3, -0.3, 0.2], dtype=torch.float64)
    states = []
    for some in (slice(None), *(slice(i, i + 1) for i in range(3))):
        state = network.new_state(len(x[some]))
        state.clamp(0, x[some])
        state.reset("zeros")
        one = beta if some == slice(None) else beta[some][0]
        solver.relax(network, state, Nudge(COSTS[cost](), y[some], one), 6)
        states.append(state.u)
    for layer, whole in enumerate(states[0]):
        torch.testing.assert_close(whole, torch.cat([u[layer] for u in states[1:]]))


def test_compiled_loops_take_one_strength_and_stand_aside_for_others() -> None:
    network = ConditionalGaussian([4, 6, 3], SquaredError(), 2, ["identity", "sigmoid", "sigmoid"])
    x, y = torch.randn(2, 4), torch.eye(3)[:2]
    state, twin = network.new_state(2), Continuation(network).new_state(2)
    for one in (state, twin):
        one.clamp(0, x)
    sign = RandomSignEquilibriumPropagation(0.5, "batch").drawn(state)[1][0]
    signs = RandomSignEquilibriumPropagation(0.5, "example").drawn(state)[1][0]
    assert compiled.applies(network, state, nudged(SquaredError(), y, sign))
    assert not compiled.applies(network, state, nudged(SquaredError(), y, signs))
    assert not compiled.fits(Continuation(network))


# ---------------------------------------------------------------------- complex states


@pytest.mark.parametrize("phi", ANALYTIC)
def test_activations_are_continued_analytically(phi: str) -> None:
    """Real on the real axis, with Cauchy's integral of φ for its value and both derivatives."""
    f = ACTIVATIONS[phi]
    centre = 0.1 * torch.randn(50, dtype=torch.complex128)  # far from all poles
    turn = torch.exp(2j * torch.pi * torch.arange(64, dtype=torch.float64) / 64)
    around = f.value_(z := centre + 0.3 * turn[:, None], torch.empty_like(z))
    r, one = f.value_(centre, torch.empty_like(centre)), torch.ones_like(centre)
    out = torch.empty_like(centre)
    torch.testing.assert_close(r.clone(), around.mean(0))
    slope = (around / (0.3 * turn[:, None])).mean(0)
    torch.testing.assert_close(f.slope_(centre, r, out), slope)
    torch.testing.assert_close(f.pullback(one, centre, r, out.clone()), slope)
    bend = 2.0 * (around / (0.3 * turn[:, None]) ** 2).mean(0)
    torch.testing.assert_close(f.second_pullback(one, slope.clone(), centre, r, out), bend)
    real = torch.randn(50, dtype=torch.float64)
    torch.testing.assert_close(f(real + 0j), f(real) + 0j)
    if type(f).inverse is not Activation.inverse:
        torch.testing.assert_close(f.inverse(r), centre)
        inside = f(real)
        torch.testing.assert_close(f.primitive(inside + 0j), f.primitive(inside) + 0j)


@pytest.mark.parametrize("cost", [SquaredError(), CrossEntropy()])
def test_costs_are_continued_analytically(cost: Any) -> None:
    u = torch.randn(5, 3, dtype=torch.float64)
    y = torch.nn.functional.one_hot(torch.arange(5) % 3, 3).double()
    for look in (
        lambda z: cost.cost(z, y),
        lambda z: cost.gradient(z, y, torch.empty_like(z)),
        lambda z: cost.curvature(z, y, torch.empty_like(z)),
    ):
        real = look(u).clone()
        torch.testing.assert_close(look(u + 0j), real + 0j)
        one, other = look(u + 1e-3j).clone(), look(u - 1e-3j)
        torch.testing.assert_close(one, other.conj())
    step = 1e-20j * torch.eye(3)[0].double()  # ∂C/∂u by a complex step
    along = cost.cost(u + step, y).imag / 1e-20
    torch.testing.assert_close(along, cost.gradient(u, y, torch.empty_like(u))[:, 0])


def soft(kind: str) -> Network:
    layers = [
        ((0, lambda shape: Conv(shape, 3, kernel=3, padding=1, pool="soft")),),
        ((1, lambda shape: Conv(shape, 3, kernel=3, padding=1, pool="soft")),),
        ((2, lambda shape: Dense(shape, 3)),),
    ]
    torch.manual_seed(3)
    return graph(LOCALS[kind](), "sigmoid", (2, 8, 8), layers)


def slope_of_four(network: Network, solver: Solver | None = None, cost: Any = None) -> float:
    made = ready(network, cost or SquaredError(), solver)
    _, state, _, cost, y = made
    exact = flat(implicit_gradient(network, state, cost, y))
    return slope(lambda r: estimated(HolomorphicEquilibriumPropagation(r), made), exact, 0.15)


@each_kind
def test_of_soft_pools(kind: str) -> None:
    assert slope_of_four(soft(kind)) == pytest.approx(4, abs=0.2)


@each_kind
def test_of_the_cross_entropy(kind: str) -> None:
    network = cases.network(kind, "dense", "sigmoid", seed=3)
    assert slope_of_four(network, cost=CrossEntropy()) == pytest.approx(4, abs=0.2)


def converging(rule: Any) -> Sweep:
    return Sweep(rule, "even_odd", 400, 400, tol=1e-12)


@pytest.mark.parametrize("phi", ANALYTIC)
def test_of_every_analytic_activation(phi: str) -> None:
    network = cases.network("gaussian", "dense", phi, seed=3)
    assert slope_of_four(network, converging("newton")) == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("kind", [k for k in cases.KINDS if k != "rate_hopfield"])  # too steep
def test_by_euler_steps(kind: str) -> None:
    solver = Euler(0.3, n_relax=3000, tol=1e-11, init="zeros")
    network = cases.network(kind, "dense", "sigmoid", seed=3)
    assert slope_of_four(network, solver) == pytest.approx(4, abs=0.2)


RULES = [
    ("rate_hopfield", "sigmoid", "exact"),
    ("rate_hopfield", "sigmoid", "newton"),
    ("predictive_coding", "sigmoid", "newton"),
    ("hopfield", "identity", "exact"),
    ("hopfield", "identity", "projected"),
]


@pytest.mark.parametrize("net", ["dense", "average"])
@pytest.mark.parametrize(("kind", "phi", "rule"), RULES)
def test_by_other_rules_than_the_recommended(kind: str, phi: str, rule: Any, net: str) -> None:
    network = cases.network(kind, net, phi, seed=3)
    if phi == "identity":
        with torch.no_grad():  # the linear network has a minimum then
            for edge in network.edges:
                edge.weight.mul_(0.5)
    assert slope_of_four(network, converging(rule)) == pytest.approx(4, abs=0.2)


@each_kind
@each_smooth_net
def test_a_continued_network_is_the_real_one_on_the_real_axis(kind: str, net: str) -> None:
    """Energy, gradient and drives; and, off it, ∂E/∂u by a complex step."""
    network = cases.network(kind, net, "tanh")
    continued, real = Continuation(network), ready(network, SquaredError())[1]
    state = continued.new_state(2)
    continued.follow(real, state)
    torch.testing.assert_close(continued.energies(state), network.energies(real) + 0j)
    for layer in real.free:
        state.u[layer].add_(0.05)
        real.u[layer].add_(0.05)
    wanted = gradient_by_autograd(network, real.u)
    for layer, found in enumerate(continued.gradient(state)):
        if found is not None:
            torch.testing.assert_close(found, wanted[layer] + 0j)
    direction = [torch.randn_like(u) for u in real.u]
    for layer in real.free:
        state.u[layer] = state.u[layer] + 1e-20j * direction[layer]
    along = sum((direction[i] * wanted[i]).flatten(1).sum(1) for i in real.free)
    torch.testing.assert_close(continued.energies(state).imag / 1e-20, along)


def test_what_is_measured_of_complex_phases() -> None:
    """The imaginary part that is discarded is rounding; measuring changes no number."""
    network, state, solver, cost, y = ready(cases.network("gaussian"), SquaredError(), Newton())
    estimator = HolomorphicEquilibriumPropagation(0.3, 6)
    plain = estimator.estimate(network, state, solver, cost, y)
    kept = flat(plain.gradients).clone()
    measured = estimator.estimate(network, state, solver, cost, y, measure=True)
    assert torch.equal(flat(measured.gradients), kept)
    assert measured.metrics["holomorphic/imaginary"] < 1e-12
    assert measured.metrics["relaxation/complex_steps"] == 4
    assert 0 < measured.metrics["relaxation/complex_residual"] < 1
    assert measured.metrics["energy/nudged"] > measured.metrics["energy/free"]
    assert all(type(value) in (int, float) for value in measured.metrics.values())


def test_what_would_not_be_conjugate_is_seen() -> None:
    """A dynamics that treats the two halves of the plane differently leaves an imaginary part."""

    class Tilted(Newton):
        moves_complex = True

        def step(self, network: Network, state: State, nudge: Nudge | None) -> None:
            super().step(network, state, nudge)
            if state.u[-1].is_complex():
                state.u[-1].imag.add_(0.1)

        steps = Solver.steps

    network, state, _, cost, y = ready(cases.network("gaussian"), SquaredError())
    found = HolomorphicEquilibriumPropagation(0.3).estimate(
        network, state, Tilted(), cost, y, measure=True
    )
    assert found.metrics["holomorphic/imaginary"] > 1e-3


def test_batches_of_changing_size_and_moving_weights() -> None:
    """One estimator goes from batch to batch as a new one would."""
    network = cases.network("hopfield", "average", "sigmoid")
    estimator = HolomorphicEquilibriumPropagation(0.3)
    for n in (4, 2, 4):
        made = ready(network, SquaredError(), n=n)
        fresh = estimated(HolomorphicEquilibriumPropagation(0.3), made)
        assert torch.equal(estimated(estimator, made), fresh)
        with torch.no_grad():
            for p in network.parameters():
                p.mul_(0.9)
    assert estimator.capture_obstacle() is None


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize("phi", [name for name in ACTIVATIONS if name not in ANALYTIC])
def test_an_activation_with_kinks_is_refused_by_name(phi: str) -> None:
    with pytest.raises(ValueError, match=f"activation {phi} is not analytic") as caught:
        HolomorphicEquilibriumPropagation().check(cases.network("gaussian", phi=phi))
    assert "\n" not in str(caught.value)


def test_other_parts_that_are_not_analytic_are_refused() -> None:
    holomorphic = HolomorphicEquilibriumPropagation()

    class Mine(LOCALS["gaussian"]):
        def value(self, u: Tensor, r: Tensor, d: Tensor, phi: Activation) -> Tensor:
            return (u - d).abs()

    class Bent(Sigmoid):
        def __call__(self, u: Tensor) -> Tensor:
            return torch.sigmoid(u.abs())

    class Whole(Network):
        def energy(self, u: Any) -> Tensor:
            return super().energy(u)

    with pytest.raises(ValueError, match="pool=max"):
        holomorphic.check(cases.network("gaussian", "max"))
    for network, why in [
        (graph(Mine(), "tanh", (4,), [((0, lambda s: Dense(s, 3)),)]), "Mine"),
        (graph(Mine(), Bent(), (4,), [((0, lambda s: Dense(s, 3)),)]), "Mine"),
        (cases.network("gaussian").to(torch.bfloat16), "bfloat16"),
    ]:
        with pytest.raises(ValueError, match=f"estimator=holomorphic.*{why}"):
            holomorphic.check(network)
    net = cases.network("gaussian")
    whole = Whole(net.shapes, net.phi, net.edges, net.local)
    with pytest.raises(ValueError, match="Whole"):
        holomorphic.check(whole)
    HolomorphicEquilibriumPropagation(points=2).check(cases.network("gaussian", "max", "relu"))


class Absolute(CEnergy):
    def cost(self, u_last: Tensor, target: Tensor) -> Tensor:
        return (u_last - target).abs().sum(1)


class OtherError(SquaredError):
    def cost(self, u_last: Tensor, target: Tensor) -> Tensor:
        return (u_last - target).abs().sum(1)


class OwnNewton(Newton):
    pass


@pytest.mark.parametrize(
    ("solver", "cost", "why"),
    [
        (Anderson(), SquaredError(), "Anderson"),
        (OwnNewton(), SquaredError(), "OwnNewton"),
        (Euler(adaptive=True), SquaredError(), r"dynamics\.adaptive"),
        (Euler(clip="auto"), SquaredError(), r"dynamics\.clip"),
        (Newton(), Absolute(), "Absolute"),
        (Newton(), OtherError(), "OtherError"),
    ],
)
def test_solvers_and_costs_that_are_not_are_refused(solver: Solver, cost: Any, why: str) -> None:
    with pytest.raises(ValueError, match=f"estimator=holomorphic.*{why}") as caught:
        HolomorphicEquilibriumPropagation().check_with(solver, cost)
    assert "\n" not in str(caught.value)
    HolomorphicEquilibriumPropagation(points=2).check_with(solver, cost)


@pytest.mark.parametrize(
    ("estimator", "key"),
    [
        (EquilibriumPropagation(-1.0), "beta=-1"),
        (CenteredEquilibriumPropagation(1.0), "beta=1"),
        (FourPointEquilibriumPropagation(0.5), "beta=0.5"),
        (RandomSignEquilibriumPropagation(1.0), "beta=1"),
        (HolomorphicEquilibriumPropagation(1.0), "radius=1"),
    ],
)
def test_a_rule_that_divides_by_zero_is_refused(estimator: Contrast, key: str) -> None:
    for solver in (Exact(), Sweep("projected"), Sweep("exact")):
        with pytest.raises(ValueError, match=f"estimator.{key}.*too low"):
            estimator.check_with(solver, SquaredError())
    for solver, cost in ((Newton(), SquaredError()), (Sweep("projected"), CrossEntropy())):
        estimator.check_with(solver, cost)


@pytest.mark.parametrize("number", [0.0, -0.5])
def test_strengths_that_cannot_be_are_refused(number: float) -> None:
    for make in (
        FourPointEquilibriumPropagation,
        RandomSignEquilibriumPropagation,
        HolomorphicEquilibriumPropagation,
    ):
        with pytest.raises(ValueError, match=r"estimator\.(beta|radius)"):
            make(number)
    with pytest.raises(ValueError, match=r"estimator\.points"):
        HolomorphicEquilibriumPropagation(0.5, 1)


def test_four_points_say_where_their_order_ends(caplog: pytest.LogCaptureFixture) -> None:
    FourPointEquilibriumPropagation().check(cases.network("gaussian", "average", "sigmoid"))
    assert caplog.messages == []
    FourPointEquilibriumPropagation().check(cases.network("gaussian", "max", "relu"))
    (line,) = caplog.messages
    assert "(pool=max, relu)" in line
