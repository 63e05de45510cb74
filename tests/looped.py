"""Small networks for the compiled loops, and where plain steps take them."""

from __future__ import annotations

import torch

from eqprop import ConditionalGaussian, CrossEntropy, RestrictedHopfield, SquaredError
from eqprop.relaxation import Euler, Newton
from eqprop.relaxation.replay import ReplayedSolver

SIZES = [12, 301, 7]  # no multiple of what a vector register or a pass holds
ENERGIES = (ConditionalGaussian, RestrictedHopfield)
COSTS = (SquaredError, CrossEntropy)
SOLVERS = {"euler": lambda: Euler(dt=0.3, tau=1.5), "newton": lambda: Newton(dt=0.9)}


def network(energy=RestrictedHopfield, cost=SquaredError, batch=9, phi=("sigmoid", "tanh"), seed=0):
    """An energy with its input clamped, in a random state, nudged towards random targets."""
    generator = torch.Generator().manual_seed(seed)
    model = energy(SIZES, cost(0.7), batch, ["identity", *phi])
    model.clamp_layer(0, torch.randn(batch, SIZES[0], generator=generator))
    for layer in model.u[1:]:
        layer.normal_(generator=generator)
    classes = torch.randint(SIZES[-1], (batch,), generator=generator)
    model.set_C_target(torch.nn.functional.one_hot(classes, SIZES[-1]).float())
    return model


def relaxed(solver: ReplayedSolver, model, n_steps: int = 8) -> list[torch.Tensor]:
    start = [layer.clone() for layer in model.u]
    solver.relax(model, n_steps)
    end = [layer.clone() for layer in model.u[1:]]
    model.u = start
    return end


def network_like(model):
    """The same network and state in float64."""
    double = type(model)(SIZES, model.c_energy, model.batch_size, list(model.phi))
    double = double.double()
    for mine, theirs in zip(double.parameters(), model.parameters(), strict=True):
        mine.data.copy_(theirs.data)
    double.clamp_layer(0, model.u[0].double())
    for mine, theirs in zip(double.u, model.u, strict=True):
        mine.copy_(theirs)
    return double


def assert_same(found, wanted) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() <= 1e-5 * (1 + other.abs().max())
