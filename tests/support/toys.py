"""A training of two epochs that takes a moment, in float64, on classes that can be told apart."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

import eqprop
from eqprop.data import Data, Split
from eqprop.estimator import EquilibriumPropagation
from eqprop.network import EnergyBasedModel
from eqprop.relaxation import Euler
from eqprop.training.callback import Callback
from eqprop.training.loop import Training
from eqprop.training.session import Row, Session

SIZES = [6, 8, 3]
LR, BETA, DT, STEPS = 0.5, 0.5, 0.1, 15
ENERGIES = {"gaussian": eqprop.ConditionalGaussian, "hopfield": eqprop.RestrictedHopfield}


def splits(n_train: int = 23, n_validation: int = 11, n_test: int = 17) -> Data:
    """Three classes of samples of six numbers."""
    generator = torch.Generator().manual_seed(4)

    def split(n: int) -> Split:
        y = torch.arange(n) % SIZES[-1]
        centres = 2 * torch.eye(SIZES[-1], SIZES[0], dtype=torch.float64)
        noise = torch.randn(n, SIZES[0], dtype=torch.float64, generator=generator)
        return Split(centres[y] + noise, y)

    validation = split(n_validation) if n_validation else None
    return Data(split(n_train), validation, split(n_test), SIZES[-1], 10, (SIZES[0],))


def network(kind: str = "gaussian") -> EnergyBasedModel:
    torch.manual_seed(1)
    phi = ["identity", "tanh", "tanh"]
    model: EnergyBasedModel = ENERGIES[kind](SIZES, eqprop.CrossEntropy(), 10, phi)
    return model.double()


def training(kind: str = "gaussian", *callbacks: Callback, **changes: Any) -> Training:
    """Two epochs of batches of 10, 10 and 3; ``changes`` of the session and of the loop.

    ``optimizer`` is a function of the parameters.
    """
    model = changes.pop("network", None) or network(kind)
    optimizer = changes.pop("optimizer", lambda parameters: torch.optim.SGD(parameters, lr=LR))
    parts: dict[str, Any] = {
        "network": model,
        "cost": eqprop.CrossEntropy(),
        "solver": Euler(dt=DT, n_relax=STEPS),
        "estimator": EquilibriumPropagation(BETA),
        "optimizer": optimizer(model.parameters()),
        "data": splits(),
        "generator": torch.Generator().manual_seed(2),
        "seed": 5,
        "epochs": 2,
    }
    known = {field.name for field in fields(Session)}
    parts |= {name: changes.pop(name) for name in list(changes) if name in known}
    return Training(Session(**parts), callbacks, **{"log_every": 1, **changes})


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


def recorded(run: Training) -> list[Row]:
    """The rows of the whole training."""
    rows: list[Row] = []
    run.record = rows.append
    run.fit()
    return rows


def weights(run: Training) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in run.session.network.parameters()]


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))
