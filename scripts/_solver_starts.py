"""Which solvers can relax a network, and the states that all of them start from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from eqprop import EnergyBasedModel, SquaredError
from eqprop.relaxation import Anderson, Euler, Exact, Newton, Solver
from eqprop.run.errors import ConfigError

ADAPTIVE_DT = 0.5  # what a step of adaptive Euler starts from, and never exceeds
RESTING = 1e-5  # residual from which a nudged phase starts, where there is no feed-forward pass


@dataclass(frozen=True)
class Start:
    """Where a phase begins: the target, None in a free phase, and the state of all free layers."""

    target: Tensor | None
    layers: list[Tensor]

    def place(self, model: EnergyBasedModel) -> None:
        model.set_C_target(self.target)
        for layer, value in zip(model.u[1:], self.layers, strict=True):
            layer.copy_(value)


@dataclass(frozen=True)
class Batch:
    """A batch of inputs with the start of each phase."""

    x: Tensor
    starts: dict[str, Start]


def solvers_of(model: EnergyBasedModel, only: tuple[str, ...] | None = None) -> dict[str, Solver]:
    """Every solver that can relax ``model``, by the name it has in tables."""
    known: dict[str, Solver] = {
        "euler": Euler(0.1),
        "euler adaptive": Euler(ADAPTIVE_DT, adaptive=True),
        "newton": Newton(),
        "anderson": Anderson(),
    }
    if isinstance(model.c_energy, SquaredError) and all(phi.pieces for phi in model.phi):
        known["exact"] = Exact()
    return {
        name: solver
        for name, solver in known.items()
        if (only is None or name in only) and _can(solver, model)
    }


def _can(solver: Solver, model: EnergyBasedModel) -> bool:
    try:
        return solver.for_model(model) is solver
    except ConfigError:
        return False


@contextmanager
def held(model: EnergyBasedModel, x: Tensor) -> Iterator[None]:
    """The input clamped and the weights held, so that their product is made once."""
    model.resize(len(x))
    model.clamp_layer(0, x)
    with torch.no_grad(), model.holding_weights():
        yield


def batch_of(model: EnergyBasedModel, x: Tensor, target: Tensor, init: str, seed: int) -> Batch:
    """Free: from ``init``, the same for every model; nudged: from the free equilibrium."""
    with held(model, x):
        model.set_C_target(None)
        model.generator = torch.Generator(x.device).manual_seed(seed)
        Euler(init=init).initialise(model)  # type: ignore[arg-type]
        free = Start(None, [layer.clone() for layer in model.u[1:]])
        _rest(model)
        nudged = Start(target, [layer.clone() for layer in model.u[1:]])
    return Batch(x, {"free": free, "nudged": nudged})


def _rest(model: EnergyBasedModel) -> None:
    newton = Newton(n_relax=300, tol=RESTING)
    solver = newton if _can(newton, model) else Euler(n_relax=3000, tol=RESTING)
    solver.free_phase(model)
