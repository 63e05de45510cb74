"""Solvers: one fixed point for all, an energy that does not rise, curvature against autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import eqprop
from eqprop.relaxation import Anderson, Euler, Exact, Newton, Solver, StopReason
from eqprop.run.errors import ConfigError

KINDS = ["gaussian", "hopfield"]
COSTS = ["squared_error", "cross_entropy"]
SIZES = [[6, 9, 4], [6, 8, 7, 5, 4]]
SOLVERS: dict[str, Callable[[], Solver]] = {
    "euler": lambda: Euler(0.2, 1.0, 3000, tol=1e-10),
    "adaptive": lambda: Euler(0.2, 1.0, 3000, tol=1e-10, adaptive=True),
    "newton": lambda: Newton(300, 300, tol=1e-10),
    "anderson": lambda: Anderson(0.2, n_relax=300, tol=1e-10),
}


def relaxed(model: Any, solver: Solver, target: Tensor | None) -> list[Tensor]:
    """The state after both phases, from one fixed start."""
    torch.manual_seed(5)
    model.set_C_target(None)
    model.reset_state()
    solver.relax(model, solver.n_relax)
    model.set_C_target(target)
    solver.relax(model, solver.n_nudged)
    return [layer.clone() for layer in model.u]


@pytest.mark.parametrize("nudged", [False, True], ids=["free", "nudged"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("phi", ["sigmoid", "tanh", "softplus"])
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_fixed_point(
    pair: Any, targets: Any, kind: str, cost: str, phi: str, sizes: list[int], nudged: bool
) -> None:
    model, _ = pair(kind, sizes, 3, phi, cost=cost, beta=0.5)
    target = targets(3, 4) if nudged else None
    names = [name for name in SOLVERS if name != "adaptive" or len(sizes) == 3]
    states = {name: relaxed(model, SOLVERS[name](), target) for name in names}
    work = model.free_layers("gradient")
    for name, state in states.items():
        model.u = state
        model.total_gradient(work)
        assert float(model.residual(work)) < 1e-9, name
        for layer, other in zip(state, states["euler"], strict=True):
            torch.testing.assert_close(layer, other, rtol=0, atol=1e-8, msg=name)


@pytest.mark.parametrize("phi", ["identity", "leaky_relu"])
def test_exact_reaches_the_same_fixed_point(pair: Any, targets: Any, phi: str) -> None:
    model, _ = pair("hopfield", [6, 8, 5, 4], 3, phi, beta=0.5)
    with torch.no_grad():  # or the energy has no minimum
        for connection in model.W:
            connection.weight.mul_(0.5)
    target = targets(3, 4)
    exact, euler = relaxed(model, Exact(400), target), relaxed(model, SOLVERS["euler"](), target)
    for layer, other in zip(exact, euler, strict=True):
        torch.testing.assert_close(layer, other, rtol=0, atol=1e-8)


@pytest.mark.parametrize("solver", ["adaptive", "newton", "exact", "anderson", "euler"])
@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_energy_does_not_rise(
    pair: Any, targets: Any, kind: str, scale: float, solver: str
) -> None:
    if solver == "exact" and kind == "gaussian":
        with pytest.raises(ConfigError, match="minimise_layer_"):
            Exact().for_model(pair(kind, [6, 9, 4], 3, "relu")[0])
        return
    phi = "hard_sigmoid" if solver == "exact" else "sigmoid"
    model, _ = pair(kind, [6, 9, 7, 4], 5, phi, beta=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
        stepper = Exact() if solver == "exact" else SOLVERS[solver]()
        work = model.free_layers("gradient")
        for target in (None, targets(5, 4)):
            model.set_C_target(target)
            stepper.begin(model)
            before = model.E.clone()
            for _ in range(40):
                stepper.step(model, work, measure=False)
                after = model.E.clone()
                assert (after <= before + 1e-9 * before.abs().clamp_min(1.0)).all()
                before = after


def test_adaptive_euler_survives_a_step_that_diverges(pair: Any) -> None:
    model, _ = pair("gaussian", [6, 9, 4], 3, "sigmoid")
    start = [layer.clone() for layer in model.u]
    plain = Euler(2.0, 1.0, 2000).relax(model, 2000, measure=True)
    assert plain.reason is StopReason.NOT_FINITE
    model.u = start
    careful = Euler(2.0, 1.0, 2000, adaptive=True).relax(model, 2000, measure=True)
    assert careful.residual is not None
    assert careful.residual < 1e-6


@pytest.mark.parametrize("phi", ["sigmoid", "tanh", "softplus", "relu", "leaky_relu", "identity"])
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("kind", KINDS)
def test_layer_opsare_autograds(pair: Any, targets: Any, kind: str, cost: str, phi: str) -> None:
    model, _ = pair(kind, [5, 6, 4, 3], 2, phi, cost=cost, beta=0.7)
    model.set_C_target(targets(2, 3))
    model.release_layer(0)
    model.begin_sweeps()
    for i in range(model.n_layers):
        grad, curvature = torch.empty_like(model.u[i]), torch.empty_like(model.u[i])
        with torch.no_grad():
            for op in model.layer_ops(i, grad, curvature):
                op()

        def total(layer: Tensor, i: int = i) -> Tensor:
            u = [layer if j == i else other for j, other in enumerate(model.u)]
            return model.energy(u).sum() + model.c_energy.compute_energy(u[-1]).sum()

        n = model.u[i].numel()
        hessian = torch.autograd.functional.hessian(total, model.u[i]).reshape(n, n)
        expected = torch.autograd.functional.jacobian(total, model.u[i])
        torch.testing.assert_close(grad, expected)
        torch.testing.assert_close(curvature.flatten(), hessian.diagonal())


@pytest.mark.parametrize("phi", ["identity", "relu", "leaky_relu", "hard_sigmoid"])
@pytest.mark.parametrize("beta", [-0.5, 0.0, 2.0])
def test_exact_is_the_minimum_of_a_layer(pair: Any, targets: Any, phi: str, beta: float) -> None:
    model, _ = pair("hopfield", [5, 6, 4], 3, phi, beta=beta)
    model.set_C_target(targets(3, 4))
    model.begin_sweeps()
    for i in (2, 1):
        model.minimise_layer_(i)
        for op in model.moved_ops(i):
            op()
        best, least = model.u[i].clone(), model.E.clone()
        for shift in torch.linspace(-4.0, 4.0, 161, dtype=best.dtype):
            for unit in range(best.shape[1]):
                model.u[i] = best
                model.u[i][:, unit] += shift
                assert bool((least - model.E < 1e-9).all())
        model.u[i] = best


def test_newton_agrees_with_exact_where_phi_has_kinks(pair: Any, targets: Any) -> None:
    model, _ = pair("hopfield", [6, 9, 7, 4], 4, "hard_sigmoid", beta=0.5)
    target = targets(4, 4)
    states = [relaxed(model, solver, target) for solver in (Newton(200, 200), Exact(200))]
    for layer, other in zip(*states, strict=True):
        torch.testing.assert_close(layer, other, rtol=0, atol=1e-8)


def test_newton_rests_on_a_kink_that_a_nudge_holds() -> None:
    """Of one unit: the nudge pulls up from 0 and the drive, inside [0, 1], pulls down harder."""
    model = eqprop.RestrictedHopfield([1, 1], eqprop.SquaredError(1.0), 1, ["hard_sigmoid"])
    model.double()
    with torch.no_grad():
        model.W[0].weight.fill_(1.0)
        model.W[0].bias.fill_(0.0)
    model.clamp_layer(0, torch.full((1, 1), -3.0, dtype=torch.float64))
    model.u[1] = torch.zeros(1, 1, dtype=torch.float64)
    model.set_C_target(torch.ones(1, 1, dtype=torch.float64))
    Newton().relax(model, 7)
    newton = model.u[1].clone()
    Exact().relax(model, 7)
    torch.testing.assert_close(newton, model.u[1])


@pytest.mark.parametrize("solver", ["euler", "newton"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_tensor_is_allocated_inside_a_relaxation(
    pair: Any, targets: Any, kind: str, solver: str
) -> None:
    model, _ = pair(kind, [30, 40, 50, 10], 20, "sigmoid", cost="cross_entropy")
    model.set_C_target(targets(20, 10))
    stepper = SOLVERS[solver]()
    with torch.no_grad(), model.holding_weights():
        stepper.relax(model, 2)  # allocates the buffers
        stepper.begin(model)
        work = model.free_layers("gradient")
        stepper.step(model, work, measure=False)
        with torch.profiler.profile(profile_memory=True) as profile:
            for _ in range(5):
                stepper.step(model, work, measure=False)
    taken = [e.key for e in profile.key_averages() if e.self_cpu_memory_usage > 0]
    assert taken == []


def test_an_energy_without_curvature_is_refused_before_the_run() -> None:
    class Mine(eqprop.EnergyBasedModel):
        def energy(self, u: Any) -> Tensor:
            return sum((layer.square().sum(1) for layer in u), torch.zeros(()))

    model = Mine([3, 4, 2], eqprop.SquaredError(1.0), 2, ["tanh", "tanh"])
    with pytest.raises(ConfigError, match="Mine defines no layer_ops"):
        Newton().for_model(model)
    with pytest.raises(ConfigError, match="feedforward"):
        Euler(init="feedforward").for_model(model)
