"""Edges, energies and clamps that are seldom seen, held against autograd and long relaxations."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

import eqprop
from eqprop.estimator import (
    AsymmetricEquilibriumPropagation,
    Backprop,
    BackpropThroughTime,
    ContrastiveHebbianLearning,
    CoupledLearning,
    DualPropagation,
    EquilibriumPropagation,
    Estimator,
    ImplicitDifferentiation,
)
from eqprop.network import (
    ACTIVATIONS,
    Conv,
    Cost,
    Dense,
    Edge,
    Gaussian,
    Hopfield,
    LocalEnergy,
    Network,
    Nudge,
    PredictiveCoding,
    RateHopfield,
    SquaredError,
    State,
    WeightGradient,
)
from eqprop.network.local import Quadratic
from eqprop.relaxation import Euler, Newton, Sweep

ENERGIES = [Gaussian, Hopfield, PredictiveCoding, RateHopfield]


class Pass(Edge):
    """The rates themselves, not a copy of them."""

    linear = True

    def forward(self, r: Tensor) -> Tensor:
        return r


def joined(edge: Edge, source: int, target: int) -> Edge:
    edge.source, edge.target = source, target
    return edge


def network(local: LocalEnergy, sizes: list[int], *more: Edge, phi: str = "sigmoid") -> Network:
    chain = [joined(Dense((a,), b), i, i + 1) for i, (a, b) in enumerate(itertools.pairwise(sizes))]
    functions = [ACTIVATIONS["identity"], *[ACTIVATIONS[phi]] * (len(sizes) - 1)]
    return Network([(n,) for n in sizes], functions, [*chain, *more], local).double()


def state_of(net: Network, batch: int = 3, inside: bool = True) -> State:
    state = net.new_state(batch)
    for layer, u in enumerate(state.u):
        state.u[layer] = torch.rand_like(u) if inside else torch.randn_like(u)
    state.clamp(0, torch.rand(batch, *net.shapes[0], dtype=torch.float64))
    return state


def slopes(net: Network, state: State) -> list[Tensor]:
    u = [layer.clone().requires_grad_() for layer in state.u]
    return list(torch.autograd.grad(net.energy(u).sum(), u, materialize_grads=True))


@pytest.mark.parametrize("local", ENERGIES)
def test_an_edge_may_return_its_input_itself(local: type[LocalEnergy]) -> None:
    net = network(local(), [4, 5, 5, 3], joined(Pass((5,), (5,)), 1, 2))
    state = state_of(net)
    before = [u.clone() for u in state.u]
    for layer, grad in enumerate(net.gradient(state)):
        if grad is not None:
            torch.testing.assert_close(grad, slopes(net, state)[layer])
    assert all(map(torch.equal, state.u, before))


@pytest.mark.parametrize("local", [Gaussian, PredictiveCoding])
def test_a_clip_moves_the_free_equilibrium_away_from_the_feed_forward_pass(
    local: type[LocalEnergy],
) -> None:
    """So a nudge of nothing leaves it where it is."""
    net = network(local(), [4, 6, 3], phi="hard_sigmoid")
    state = state_of(net)
    with torch.no_grad():
        for edge in net.edges:
            edge.bias.add_(-0.5)  # the pass leaves 0 … 1
    solver = Euler(dt=0.1, clip=[0.0, 1.0], n_relax=2000)
    solver.free_phase(net, state)
    free = [u.clone() for u in state.u]
    assert all(float(u.min()) >= 0.0 for u in free[1:])
    solver.relax(net, state, None, 10)
    for now, then in zip(state.u, free, strict=True):
        torch.testing.assert_close(now, then)


class Pulled(Network):
    """A nudge of its own on the first hidden layer, which depends on the layer above."""

    def nudge_at(self, state: State, layer: int, nudge: Nudge | None) -> Nudge | None:
        if nudge is None or layer != 1:
            return super().nudge_at(state, layer, nudge)
        slope = state.u[2].sum() * torch.ones_like(state.u[1])
        return Nudge(Slope(), slope, slope.new_ones(()))


class Slope(Cost):
    def cost(self, u_last: Tensor, target: Tensor) -> Tensor:
        return (target * u_last).sum(1)

    def gradient(self, u_last: Tensor, target: Tensor, out: Tensor) -> Tensor:
        return out.copy_(target)

    def quadratic(self, target: Tensor) -> Quadratic:
        return Quadratic(0.0, -target)


def pulled(local: LocalEnergy) -> Network:
    plain = network(local, [4, 5, 5, 5, 3], phi="identity")
    return Pulled(plain.shapes, plain.phi, plain.edges, local)


def nudge_for(state: State) -> Nudge:
    return Nudge(SquaredError(), torch.rand_like(state.u[-1]), state.u[-1].new_tensor(0.5))


def test_all_nudges_of_a_synchronous_sweep_are_of_the_state_before_it() -> None:
    """As where the layers are listed in the other order."""
    net, ends = pulled(PredictiveCoding()), []
    state = state_of(net)
    nudge = nudge_for(state)
    start = state.copy()
    solver = Sweep("projected", "synchronous")
    for layers in ([1, 2, 3, 4], [4, 3, 2, 1]):
        state.restore(start)
        with torch.no_grad(), state.held():
            solver._move_together(net, state, nudge, layers)
        ends.append([u.clone() for u in state.u])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other)


def test_a_layer_at_rest_that_is_nudged_moves() -> None:
    net = pulled(PredictiveCoding())
    state = state_of(net)
    nudge = nudge_for(state)
    solver = Sweep("projected", "even_odd", n_relax=1)
    with torch.no_grad(), state.held():
        solver.free_phase(net, state)
        before = state.u[1].clone()
        solver.relax(net, state, nudge, 1)
    assert not torch.allclose(state.u[1], before)


class Differences(Dense):
    """A product that constants do not pass through."""

    def forward(self, r: Tensor) -> Tensor:
        return nn.functional.linear(r - r.roll(1, 1), self.weight)

    drive, pull, gradient, squared_norm = Edge.drive, Edge.pull, Edge.gradient, Edge.squared_norm


def test_newton_sees_how_stiff_an_edge_is_that_takes_no_constants() -> None:
    net = network(Gaussian(), [4, 6, 3], phi="identity")
    edge = joined(Differences((6,), 3), 1, 2)
    net = Network(net.shapes, net.phi, [net.edges[0], edge], net.local).double()
    with torch.no_grad():
        edge.weight.mul_(4.0)
    state = state_of(net)
    state.clamp(2, torch.rand(3, 3, dtype=torch.float64))
    found = Newton().relax(net, state, None, 200, measure=True)
    assert found.residual is not None
    assert found.first_residual is not None
    assert found.residual < 1e-6 * found.first_residual


@pytest.mark.parametrize("local", ENERGIES)
def test_a_released_input_follows_the_energy(local: type[LocalEnergy]) -> None:
    net = network(local(), [4, 5, 3])
    net = Network(net.shapes, [ACTIVATIONS["sigmoid"]] * 3, net.edges, local()).double()
    state = state_of(net)
    state.release(0)
    wanted = [u - 0.01 * slope for u, slope in zip(state.u, slopes(net, state), strict=True)]
    solver = Euler(dt=0.01)
    with torch.no_grad(), state.held():
        solver.step(net, state, None)
    torch.testing.assert_close(state.u[0], wanted[0])


class Stiff(nn.Module, LocalEnergy):
    """An energy of local terms with a parameter of its own, and nothing in closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

    def value(self, u: Tensor, r: Tensor, d: Tensor, phi: Any) -> Tensor:
        return 0.5 * self.k * (u - d).square()


def test_local_terms_may_have_parameters_of_their_own() -> None:
    net = network(Stiff(), [4, 5, 3])
    state = state_of(net)
    for layer, grad in enumerate(net.gradient(state)):
        if grad is not None:
            torch.testing.assert_close(grad, slopes(net, state)[layer])
    Newton().relax(net, state, None, 2)


class Scaled(PredictiveCoding):
    scale = 3.0


def test_a_nudge_outside_counts_in_units_of_the_energy() -> None:
    """At a linear output φ(d) − ∂C/∂u / scale is where F is least, inside or outside."""
    ends = []
    for place in ("inside", "outside"):
        torch.manual_seed(0)
        net = network(Scaled(), [4, 5, 3], phi="identity")
        state = state_of(net)
        nudge = Nudge(Slope(), torch.ones_like(state.u[-1]), state.u[-1].new_ones(()))
        with torch.no_grad(), state.held():
            Sweep("projected", nudge=place).step(net, state, nudge)
        ends.append(state.u[-1].clone())
    torch.testing.assert_close(*ends)


def test_a_clamped_output_is_pulled_by_nothing() -> None:
    net = network(Hopfield(), [4, 3, 3])
    state = state_of(net)
    state.clamp(2, torch.rand(3, 3, dtype=torch.float64))
    estimator = ImplicitDifferentiation()
    target = torch.eye(3, dtype=torch.float64)
    found = estimator.estimate(net, state, Newton(n_relax=50), SquaredError(), target)
    assert all(float(g.abs().max()) == 0.0 for g in found.gradients)


@pytest.mark.parametrize("estimator", [Backprop(), BackpropThroughTime(3), DualPropagation()])
def test_what_holds_no_layer_but_the_input_says_so(estimator: Estimator) -> None:
    net = network(Hopfield(), [4, 5, 3])
    state = state_of(net)
    state.clamp(1, torch.rand(3, 5, dtype=torch.float64))
    target = torch.eye(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="layer 1"):
        estimator.estimate(net, state, Euler(), SquaredError(), target)
    EquilibriumPropagation(0.1).estimate(net, state, Euler(), SquaredError(), target)


def test_a_network_answers_in_inference_mode() -> None:
    net = network(Hopfield(), [4, 5, 3])
    net.phi[1] = net.rate_phi[1] = type(net.phi[1]).__mro__[1](torch.sin)
    x = torch.rand(2, 4, dtype=torch.float64)
    with torch.inference_mode():
        inside = net(x)
    torch.testing.assert_close(inside, net(x))


def to_itself() -> Network:
    net = network(RateHopfield(), [4, 6, 3], joined(Dense((6,), 6, bias=False), 1, 1))
    phi = [ACTIVATIONS[name] for name in ("identity", "sigmoid", "identity")]
    return Network(net.shapes, phi, net.edges, net.local).double()


def with_a_soft_pool() -> Network:
    shapes: list[tuple[int, ...]] = [(1, 4, 4), (2, 4, 4), (3, 2, 2), (3,)]
    edges = [
        joined(Conv(shapes[0], channels=2, kernel=3, padding=1), 0, 1),
        joined(Conv(shapes[1], channels=3, kernel=3, padding=1, pool="soft"), 1, 2),
        joined(Dense(shapes[2], 3), 2, 3),
    ]
    phi = [ACTIVATIONS[name] for name in ("identity", "sigmoid", "sigmoid", "identity")]
    return Network(shapes, phi, edges, RateHopfield()).double()


@pytest.mark.parametrize("rule", ["exact", "projected"])
@pytest.mark.parametrize("make", [to_itself, with_a_soft_pool])
def test_unrolled_sweeps_where_a_layer_is_pushed_by_its_own_state(
    make: Callable[[], Network], rule: Any
) -> None:
    """Against differences of the cost after as many sweeps, of every parameter."""
    net = make()
    x, target = torch.rand(2, *net.shapes[0]).double(), torch.eye(3, dtype=torch.float64)[:2]
    state, solver = net.new_state(2), Sweep(rule, n_relax=3, init="zeros")
    state.clamp(0, x)

    def cost() -> float:
        solver.free_phase(net, state)
        return float(SquaredError().cost(state.u[-1], target).mean())

    with torch.no_grad():
        for edge in net.edges:
            for weight in edge.weights():
                weight.mul_(2.0)
    found = BackpropThroughTime(3).estimate(net, state, solver, SquaredError(), target).gradients
    for parameter, gradient in zip(net.parameters(), found, strict=True):
        flat, slope = parameter.data.view(-1), gradient.reshape(-1)
        for i in range(0, len(flat), 7):
            ends = []
            for step in (1e-5, -2e-5):
                flat[i] += step
                ends.append(cost())
            flat[i] += 1e-5
            assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(float(slope[i]), abs=1e-8)


def test_an_output_that_is_read_out_drives_nothing() -> None:
    net = network(Gaussian(), [4, 5, 3], phi="identity")
    back = joined(Dense((3,), 5, bias=False), 2, 1)
    with pytest.raises(ValueError, match=r"model\.readout=true.* to layer 1"):
        Network(net.shapes, net.phi, [*net.edges, back], RateHopfield(readout=True))


class ScaledRates(RateHopfield):
    scale = 3.0


def test_what_is_read_out_counts_in_the_units_of_its_energy() -> None:
    net = network(ScaledRates(readout=True), [4, 5, 3], phi="identity")
    state = state_of(net)
    torch.testing.assert_close(net.energy(state.u), net.energies(state))
    for layer, grad in enumerate(net.gradient(state)):
        if grad is not None:
            torch.testing.assert_close(grad, slopes(net, state)[layer])


class TwiceTheError(SquaredError):
    """A cost that bends twice as much: C = ‖u − y‖²."""

    def cost(self, u_last: Tensor, target: Tensor) -> Tensor:
        return (u_last - target).square().flatten(1).sum(1)

    def gradient(self, u_last: Tensor, target: Tensor, out: Tensor) -> Tensor:
        return torch.sub(u_last, target, out=out).mul_(2.0)

    def quadratic(self, target: Tensor) -> Quadratic:
        return Quadratic(2.0, 2.0 * target)


@pytest.mark.parametrize("make", [EquilibriumPropagation, AsymmetricEquilibriumPropagation])
def test_a_nudge_under_which_there_is_no_minimum_is_refused(make: Any) -> None:
    solver = Sweep("exact")
    for cost, lowest in ((SquaredError(), -1.0), (TwiceTheError(), -0.5)):
        make(lowest + 0.01).check_with(solver, cost)
        with pytest.raises(ValueError, match=rf"beta={lowest:g}"):
            make(lowest).check_with(solver, cost)
        make(lowest).check_with(Newton(), cost)


@pytest.mark.parametrize("estimator", [CoupledLearning(), ContrastiveHebbianLearning()])
def test_a_clamped_output_is_not_moved(estimator: Estimator) -> None:
    net = network(Hopfield(), [4, 5, 3])
    state = state_of(net)
    state.clamp(2, torch.rand(3, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="output is clamped"):
        estimator.estimate(net, state, Newton(), SquaredError(), torch.eye(3).double())
    assert state.clamped[2]


class Symmetric(nn.Module):
    """Torch's own example of a parametrization."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).transpose(-1, -2)


@pytest.mark.parametrize("local", ENERGIES)
def test_weights_that_torch_makes_of_others(local: type[LocalEnergy]) -> None:
    net = network(local(), [4, 5, 5, 3])
    register_parametrization(net.edges[1], "weight", Symmetric())
    register_parametrization(net.edges[0], "weight", Tripled())
    state = state_of(net)
    gradient = WeightGradient(net)
    gradient.begin()
    gradient.add(state, 1.0)
    found = gradient.finish(state)
    parameters = list(net.parameters())
    wanted = torch.autograd.grad(net.energy(list(state.u)).mean(), parameters)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_the_published_gradient_of_a_loss_leaves_frozen_weights_out() -> None:
    model = eqprop.RestrictedHopfield([4, 5, 3], SquaredError(), 2, ["sigmoid"] * 2)
    x = torch.rand(2, 4)
    model.W[0].requires_grad_(False)
    found = model.w_get_gradients(model.W[1](model.W[0](x)).square().sum())
    frozen = [not bool(g.any()) for g in found]
    assert frozen == [not p.requires_grad for p in model.parameters()]


class Tripled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 3.0 * weight


class Whole(Network):
    """Gives its energy as a whole."""

    def energy(self, u: Sequence[Tensor]) -> Tensor:
        return super().energy(u)


FROZEN: list[Estimator] = [
    Backprop(),  # first: a whole energy has no feed-forward pass for it
    BackpropThroughTime(3),
    ImplicitDifferentiation(),
    AsymmetricEquilibriumPropagation(0.1),
    EquilibriumPropagation(0.1),
]


@pytest.mark.parametrize(
    ("estimator", "kind"),
    [
        *((of, Network) for of in FROZEN),
        *((of, Whole) for of in FROZEN[1:]),
    ],  # no pass for Backprop
)
def test_the_rest_learns_while_some_weights_are_frozen(
    estimator: Estimator, kind: type[Network]
) -> None:
    net = network(Hopfield(), [4, 5, 3])
    net = kind(net.shapes, net.phi, net.edges, net.local)
    state = state_of(net)
    how = net, state, Euler(0.3, n_relax=30, init="zeros"), SquaredError(), torch.eye(3).double()
    wanted = [g.clone() for g in estimator.estimate(*how).gradients]
    net.edges[0].requires_grad_(False)
    found = estimator.estimate(*how).gradients
    for parameter, one, other in zip(net.parameters(), found, wanted, strict=True):
        if parameter.requires_grad:
            torch.testing.assert_close(one, other)
    net.requires_grad_(False)
    estimator.estimate(*how)
