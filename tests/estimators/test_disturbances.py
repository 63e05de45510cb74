"""Noise against the contrastive formula by hand: copies of the network, and autograd.

What a phase sees, and what the weight gradient reads of it, is written out here with networks that
have those weights and states that have that noise.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from cases import KINDS, NETS, batch, network
from networks import assert_close_lists, weights_by_autograd
from torch import Tensor

from eqprop.estimator import (
    AsymmetricEquilibriumPropagation,
    Backprop,
    CenteredEquilibriumPropagation,
    EquilibriumPropagation,
    Estimate,
    Estimator,
)
from eqprop.estimator import HolomorphicEquilibriumPropagation as Holomorphic
from eqprop.estimator.estimator import nudged
from eqprop.network import CrossEntropy, Hopfield, Network, SquaredError, State, chain
from eqprop.relaxation import Euler, Solver, recommended_solver
from eqprop.run.errors import RunError
from eqprop.training.noise import (
    GradientNoise,
    Mismatch,
    Noise,
    Quantised,
    StateNoise,
    WeightNoise,
    quantise_,
)

BETA = 0.3
ESTIMATORS = {
    "ep": EquilibriumPropagation(BETA),
    "ep_centered": CenteredEquilibriumPropagation(BETA),
}
ALL: dict[str, Callable[[], Noise]] = {
    "state": lambda: StateNoise(0.1),
    "step": lambda: StateNoise(0.1, "step"),
    "weights": lambda: WeightNoise(0.1),
    "gradient": lambda: GradientNoise(0.1),
    "mismatch": lambda: Mismatch(0.1),
    "few bits": lambda: Quantised(3),
    "states of few bits": lambda: Quantised(3, "state"),
    "steps of few bits": lambda: Quantised(3, "state", "step"),
}
every_network = pytest.mark.parametrize("net", NETS)
every_energy = pytest.mark.parametrize("kind", KINDS)
every_noise = pytest.mark.parametrize("name", ALL)
both = pytest.mark.parametrize("how", ESTIMATORS)


def solver() -> Solver:
    return Euler(dt=0.1, n_relax=6, n_nudged=4, init="auto")


def begun(noise: Noise, net: Network, seed: int = 7) -> Noise:
    noise.begin(net, seed)
    return noise


def clamped(net: Network, seed: int = 3) -> tuple[State, Tensor]:
    """A state with an input, and its targets; the same again with the same seed."""
    x, y = batch(net)
    state = net.new_state(len(x), torch.Generator().manual_seed(seed))
    state.clamp(0, x)
    return state, y


def ignore(gradients: list[Tensor]) -> None:
    """An update that moves nothing."""


def estimated(
    noise: Noise, net: Network, how: Estimator | str = "ep", relaxing: Solver | None = None
) -> tuple[Estimate, State]:
    estimator = ESTIMATORS[how] if isinstance(how, str) else how
    state, y = clamped(net)
    parts = net, state, relaxing or solver(), SquaredError(), y
    return noise.estimate(estimator, *parts, update=ignore), state


def copied(net: Network, change: Callable[[int, Tensor], Any]) -> Network:
    """A copy with other weights: of the parameters but the biases, by number, in place."""
    other = copy.deepcopy(net)
    named = [p for name, p in other.named_parameters() if not name.endswith("bias")]
    with torch.no_grad():
        for number, weight in enumerate(named):
            change(number, weight)
    return other


Read = Callable[[State], list[Tensor]]


def plainly(state: State) -> list[Tensor]:
    return list(state.u)


def by_hand(
    free_net: Network, nudged_net: Network, how: str, read: Read = plainly, relaxing: Any = None
) -> list[Tensor]:
    """Σ_k c_k ∂E/∂θ(u_k), the free phase by one network and the nudged ones by the other."""
    relax = relaxing or (lambda net, state, nudge, n: solver().relax(net, state, nudge, n))
    state, y = clamped(free_net)
    if not solver().initialise(free_net, state):
        relax(free_net, state, None, 6)
    free = [u.clone() for u in state.u]
    total = [torch.zeros_like(p) for p in free_net.parameters()]

    def add(net: Network, u: list[Tensor], c: float) -> None:
        for sum_, g in zip(total, weights_by_autograd(net, u), strict=True):
            sum_.add_(g, alpha=c)

    if how == "ep" and not free_net.feedforward:  # else it is zero, and not read
        add(free_net, read(state), -1 / BETA)
    state, _ = clamped(nudged_net)
    pairs = [(BETA, 1 / BETA)] if how == "ep" else [(-BETA, -0.5 / BETA), (BETA, 0.5 / BETA)]
    for beta, c in pairs:
        state.u[:] = free
        state.forget()
        relax(nudged_net, state, nudged(SquaredError(), y, beta), 4)
        add(nudged_net, read(state), c)
    return total


# ---------------------------------------------------------------------- the weights that phases see


@every_energy
@every_network
@both
def test_nudged_phases_of_another_device(kind: str, net: str, how: str) -> None:
    ours = network(kind, net)
    noise = Mismatch(0.1)
    noise.begin(ours, 7)
    found, _ = estimated(noise, ours, how)
    other = copied(ours, lambda i, w: w.mul_(noise.factors[i]))
    assert_close_lists(found.gradients, by_hand(ours, other, how))


@every_energy
@every_network
@both
def test_all_phases_see_other_weights(kind: str, net: str, how: str) -> None:
    ours = network(kind, net)
    drawn = torch.Generator().manual_seed(3)
    other = copied(
        ours, lambda i, w: w.mul_(torch.empty_like(w).normal_(1.0, 0.1, generator=drawn))
    )
    found, _ = estimated(begun(WeightNoise(0.1), ours), ours, how)
    found = [g.clone() for g in found.gradients]
    state, y = clamped(other)
    state.generator = drawn  # where the noise leaves it, to the first state
    wanted = ESTIMATORS[how].estimate(other, state, solver(), SquaredError(), y).gradients
    if net == "max":  # of a disturbed pool the phases are not summed before they are multiplied
        assert_close_lists(found, wanted)
    else:
        assert_close_lists(found, wanted, rtol=0, atol=0)


@every_energy
@both
def test_all_phases_see_weights_of_few_bits(kind: str, how: str) -> None:
    ours = network(kind)
    found, _ = estimated(begun(Quantised(3), ours), ours, how)
    found = [g.clone() for g in found.gradients]
    other = copied(ours, lambda i, w: quantise_(w, 3))
    state, y = clamped(other)
    wanted = ESTIMATORS[how].estimate(other, state, solver(), SquaredError(), y).gradients
    assert_close_lists(found, wanted, rtol=0, atol=0)


def test_a_mismatch_is_that_of_the_seed_and_of_no_batch() -> None:
    net = network("hopfield")
    one, again, other = (begun(Mismatch(0.05), net, seed) for seed in (1, 1, 2))
    before = [f.clone() for f in one.factors]
    for _ in range(3):
        estimated(one, net)
    for mine, kept, same, another in zip(
        one.factors, before, again.factors, other.factors, strict=True
    ):
        assert torch.equal(mine, kept)
        assert torch.equal(mine, same)
        assert not torch.equal(mine, another)


class Looking(Euler):
    """Keeps the weights, and the states' noise, that each phase begins with."""

    def __init__(self, net: Network, **keys: Any) -> None:
        super().__init__(**keys)
        self.net, self.seen = net, []

    def begin(self, *phase: Any) -> None:
        self.seen.append([p.detach().clone() for p in self.net.parameters()])


@pytest.mark.parametrize("how", ESTIMATORS)
def test_free_and_nudged_phases_differ_by_the_mismatch_alone(how: str) -> None:
    net = network("hopfield")
    looking = Looking(net, n_relax=2)
    estimated(begun(Mismatch(0.05), net), net, how, looking)
    free, *others = looking.seen
    assert len(others) == (1 if how == "ep" else 2)
    for name, a, *b in zip(dict(net.named_parameters()), free, *others, strict=True):
        for nudged_weight in b:
            assert torch.equal(nudged_weight, b[0])
            assert torch.equal(nudged_weight, a) == name.endswith("bias")


def test_a_second_free_phase_is_that_of_the_first_device() -> None:
    net = network("hopfield")
    looking, noise = Looking(net, n_relax=2), begun(Mismatch(0.05), net)
    state, y = clamped(net)
    with noise.disturbing(state):
        for nudge in (None, nudged(SquaredError(), y, BETA), None):
            if nudge is None:
                looking.free_phase(net, state)
            else:
                looking.relax(net, state, nudge, 1)
    first, other, again = looking.seen
    assert_close_lists(again, first, rtol=0, atol=0)
    assert not torch.equal(other[0], first[0])


# ---------------------------------------------------------------------- the states


@every_energy
@every_network
@both
def test_what_is_read_is_noisy_and_the_state_is_not(kind: str, net: str, how: str) -> None:
    ours = network(kind, net)
    drawn = torch.Generator().manual_seed(3)
    if not ours.feedforward:
        clamped(ours)[0].reset()
        state, _ = clamped(ours)
        state.generator = drawn
        solver().initialise(ours, state)  # the first draws are the first state's

    def read(state: State) -> list[Tensor]:
        noisy = [u + 0.1 * torch.empty_like(u).normal_(generator=drawn) for u in state.u[1:]]
        return [state.u[0], *noisy]

    found, after = estimated(begun(StateNoise(0.1), ours), ours, how)
    assert_close_lists(found.gradients, by_hand(ours, ours, how, read))
    _, plain = estimated(begun(StateNoise(0.0), ours), ours, how)
    assert all(torch.equal(a, b) for a, b in zip(after.u, plain.u, strict=True))


@every_energy
@both
def test_each_step_is_noisy(kind: str, how: str) -> None:
    net = network(kind)
    drawn = torch.Generator().manual_seed(3)
    if not net.feedforward:
        state, _ = clamped(net)
        state.generator = drawn
        solver().initialise(net, state)

    def relax(net: Network, state: State, nudge: Any, n: int) -> None:
        for _ in range(n):
            solver().relax(net, state, nudge, 1)
            for layer in state.free:
                u = state.u[layer]
                u.add_(torch.empty_like(u).normal_(generator=drawn), alpha=0.1)
                u.clamp_(*net.domains[layer])
            state.forget()

    found, _ = estimated(begun(StateNoise(0.1, "step"), net), net, how)
    assert_close_lists(found.gradients, by_hand(net, net, how, relaxing=relax))


@pytest.mark.parametrize("tol", [0.0, 1e-12])
def test_noise_of_strength_0_is_none(tol: float) -> None:
    """Also where the residual is asked for at each step."""
    net = network("hopfield")
    relaxing = Euler(dt=0.1, n_relax=6, tol=tol, init="zeros")
    state, y = clamped(net)
    plain = EquilibriumPropagation(BETA).estimate(net, state, relaxing, SquaredError(), y)
    for noise in (
        *(StateNoise(0.0), StateNoise(0.0, "step"), WeightNoise(0.0)),
        *(GradientNoise(0.0), Mismatch(0.0)),
    ):
        found, after = estimated(begun(noise, net), net, EquilibriumPropagation(BETA), relaxing)
        assert_close_lists(found.gradients, plain.gradients, rtol=0, atol=0)
        assert_close_lists(after.u, state.u, rtol=0, atol=0)


def test_states_stay_where_the_energy_is_finite() -> None:
    net = network("rate_hopfield", phi="hard_sigmoid")
    found, state = estimated(begun(StateNoise(1.0, "step"), net), net)
    assert torch.isfinite(net.energies(state)).all()
    assert all(torch.isfinite(g).all() for g in found.gradients)


# ---------------------------------------------------------------------- statistics


def test_noise_of_states_has_the_mean_and_the_strength_that_it_says() -> None:
    u = torch.full((1000, 1000), 3.0, dtype=torch.float64)
    StateNoise(0.02).change(u, torch.Generator().manual_seed(1))
    assert float(u.mean()) == pytest.approx(3.0, abs=4 * 0.02 / 1000)
    assert float(u.std()) == pytest.approx(0.02, rel=4 / math.sqrt(2e6))


@pytest.mark.parametrize("make", [WeightNoise, Mismatch])
def test_noise_of_weights_is_relative_to_each(make: Any) -> None:
    torch.manual_seed(0)
    net = network("hopfield")
    net.W[0].weight = torch.nn.Parameter(torch.randn(500, 400, dtype=torch.float64))
    looking = Looking(net, n_relax=1)
    noise = begun(make(0.05), net)
    state = net.new_state(1, torch.Generator().manual_seed(2))
    with noise.disturbing(state):
        noise.phase(state, nudged=True)
        ratio = net.W[0].weight.detach().clone()
    ratio /= net.W[0].weight.detach()
    assert looking.seen == []
    assert float(ratio.mean()) == pytest.approx(1.0, abs=4 * 0.05 / math.sqrt(2e5))
    assert float(ratio.std()) == pytest.approx(0.05, rel=4 / math.sqrt(4e5))


def test_weights_are_drawn_anew_for_each_batch() -> None:
    net = network("gaussian")
    noise, seen = begun(WeightNoise(0.05), net), []
    state, _ = clamped(net)
    for _ in range(2):
        with noise.disturbing(state):
            seen.append(net.W[0].weight.detach().clone())
    assert not torch.equal(*seen)


def test_noise_of_gradients_is_relative_to_the_rms_of_each() -> None:
    net = network("gaussian")
    big, none = torch.Generator().manual_seed(1), torch.zeros(50, dtype=torch.float64)
    g = torch.randn(1000, 500, dtype=torch.float64, generator=big) * 1e-3
    noisy, zeros = g.clone(), none.clone()
    state, _ = clamped(net)
    begun(GradientNoise(0.3), net).end_batch(state, Estimate([noisy, zeros], state.u[-1]))
    difference = noisy - g
    rms = float(g.square().mean().sqrt())
    assert float(difference.mean()) == pytest.approx(0.0, abs=4 * 0.3 * rms / math.sqrt(5e5))
    assert float(difference.std()) == pytest.approx(0.3 * rms, rel=4 / math.sqrt(1e6))
    assert torch.equal(zeros, none)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_so_many_levels_and_no_value_further_than_half_a_step(bits: int, dtype: Any) -> None:
    torch.manual_seed(1)
    x = 2 * torch.rand(300, 200, dtype=dtype) - 1.3
    found = quantise_(x.clone(), bits)
    step = float(x.max() - x.min()) / (2**bits - 1)
    assert len(found.unique()) == 2**bits
    rounding = 4 * torch.finfo(dtype).eps * float(x.abs().max())
    assert float((found - x).abs().max()) <= step / 2 + rounding
    assert float(found.min()) == float(x.min())
    assert float(found.max()) == pytest.approx(float(x.max()), abs=rounding)


def test_a_tensor_of_one_value_stays() -> None:
    x = torch.full((3, 4), -0.7)
    assert torch.equal(quantise_(x.clone(), 3), x)


# ---------------------------------------------------------------------- what is left behind


@contextmanager
def unchanged(net: Network) -> Iterator[None]:
    before = [p.detach().clone() for p in net.parameters()]
    yield
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@every_noise
@both
def test_weights_are_put_back_bit_for_bit(name: str, how: str) -> None:
    net = network("predictive_coding", "max")
    noise = begun(ALL[name](), net)
    with unchanged(net):
        for _ in range(3):
            _, state = estimated(noise, net, how)
    assert state.noise is None


class Torn(SquaredError):  # noqa: N818 - no exception
    """Interrupts the nudged phase."""

    def gradient(self, u_last: Tensor, target: Tensor, out: Tensor) -> Tensor:
        raise KeyboardInterrupt


@every_noise
@pytest.mark.parametrize("kind", ["gaussian", "hopfield"])
def test_weights_are_put_back_after_an_interrupt(name: str, kind: str) -> None:
    net = network(kind)
    noise = begun(ALL[name](), net)
    state, y = clamped(net)
    parts = net, state, solver(), Torn(), y
    with unchanged(net), pytest.raises(KeyboardInterrupt):
        noise.estimate(EquilibriumPropagation(BETA), *parts, update=ignore)
    assert state.noise is None


def test_nor_does_an_interrupt_while_they_are_changed_matter() -> None:
    net = network("gaussian")
    noise = begun(Quantised(2), net)

    def cut(weights: list[Tensor]) -> None:
        weights[0].zero_()
        raise KeyboardInterrupt

    noise._quantise = cut
    with unchanged(net), pytest.raises(KeyboardInterrupt):
        estimated(noise, net)


class Learning(EquilibriumPropagation):
    """Moves the weights within its phases, by a step of gradient 1."""

    def estimate(self, network: Any, *parts: Any, update: Any = None, **how: Any) -> Estimate:
        found = super().estimate(network, *parts, **how)
        update([torch.ones_like(p) for p in network.parameters()])
        self.seen = network.W[0].weight.detach().clone()
        return Estimate(found.gradients, found.output, applied=True)


@every_noise
def test_an_estimator_that_moves_weights_moves_those_that_learn(name: str) -> None:
    net = network("hopfield")
    noise = begun(ALL[name](), net)
    before = [p.detach().clone() for p in net.parameters()]
    state, y = clamped(net)
    told = []

    def update(gradients: list[Tensor]) -> None:
        told.extend(gradients)
        with torch.no_grad():
            for p in net.parameters():
                p.sub_(0.5)

    parts = net, state, solver(), SquaredError(), y
    learning = Learning(BETA)
    noise.estimate(learning, *parts, update=update)
    others = {"weights", "mismatch", "few bits"}  # and these see others again afterwards
    assert torch.equal(learning.seen, net.W[0].weight) == (name not in others)
    assert_close_lists(list(net.parameters()), [p - 0.5 for p in before], rtol=0, atol=0)
    assert all(torch.equal(g, torch.ones_like(g)) for g in told) == (name != "gradient")


@every_noise
@pytest.mark.parametrize("kind", ["gaussian", "predictive_coding", "rate_hopfield"])
def test_any_solver_that_is_recommended_can_be_disturbed(name: str, kind: str) -> None:
    net = network(kind, "average")
    noise = begun(ALL[name](), net)
    found, _ = estimated(noise, net, "ep_centered", recommended_solver(net))
    assert all(torch.isfinite(g).all() for g in found.gradients)
    with_loss = Backprop() if name in ("weights", "gradient", "few bits") else None
    if with_loss is not None:
        found, _ = estimated(noise, net, with_loss)
        assert all(torch.isfinite(g).all() for g in found.gradients)


@pytest.mark.parametrize("name", ["state", "step", "mismatch", "states of few bits"])
def test_what_meets_no_phase_is_refused(name: str) -> None:
    """An estimator of somebody else's too, which does not say that it relaxes nothing."""
    net = network("gaussian")
    with pytest.raises(RunError, match=r"Backprop has no phases.*choose noise=weights"):
        estimated(begun(ALL[name](), net), net, Backprop())


@pytest.mark.parametrize(
    ("name", "estimator"),
    [
        *((name, Holomorphic()) for name in ("state", "step", "mismatch", "steps of few bits")),
        ("mismatch", AsymmetricEquilibriumPropagation(BETA)),
    ],
)
def test_what_some_phases_do_not_meet_is_refused(name: str, estimator: Estimator) -> None:
    net = network("hopfield", phi="tanh")
    with pytest.raises(RunError, match=rf"{type(estimator).__name__} has phases.*noise=weights"):
        estimated(begun(ALL[name](), net), net, estimator)
    found, _ = estimated(begun(ALL["few bits"](), net), net, estimator)
    assert all(torch.isfinite(g).all() for g in found.gradients)


def test_feedback_weights_that_stay_are_those_of_a_device_too() -> None:
    phi = ["identity", "tanh", "tanh"]
    net = chain(Hopfield, (4,), [5], 3, phi, SquaredError(), 2, feedback="fixed")
    back = [edge.feedback for edge in net.edges if edge.feedback is not None]
    fixed = next(weight for edge in back for weight in edge.buffers())
    before, seen = fixed.clone(), begun(Quantised(2), net).weights
    with torch.no_grad():
        seen.put(lambda weights: [quantise_(w, 2) for w in weights])
        assert len(fixed.unique()) == 4
        seen.take_back()
    assert torch.equal(fixed, before)
    assert len(before.unique()) > 4


def test_an_evaluation_sees_bits_and_no_noise() -> None:
    assert [n for n, make in ALL.items() if make().evaluated] == [
        *("few bits", "states of few bits", "steps of few bits")
    ]


def test_measuring_under_noise_measures_what_is_there() -> None:
    """The energy of a nudged phase is that of the weights that it ran with."""
    net = network("hopfield")
    noise = Mismatch(0.2)
    noise.begin(net, 7)
    state, y = clamped(net)
    parts = net, state, solver(), CrossEntropy(), y
    found = noise.estimate(EquilibriumPropagation(BETA), *parts, update=ignore, measure=True)
    other = copied(net, lambda i, w: w.mul_(noise.factors[i]))
    wanted = float(other.energy(list(state.u)).mean().detach())
    assert found.metrics["energy/nudged"] == pytest.approx(wanted)
