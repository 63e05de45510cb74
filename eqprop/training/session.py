"""What a run trains with, and where it stands: passed along to whatever watches it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eqprop.data import Data
from eqprop.estimator import Estimator
from eqprop.network import Cost, Network, State
from eqprop.relaxation import Solver

Row = dict[str, float | int]


@dataclass
class Position:
    """Where a training stands: in which epoch, and what it has found there so far."""

    epoch: int = 1
    batches: int = 0
    """How many of the epoch's batches are done."""
    correct: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64))
    seconds: float = 0.0


@dataclass
class Session:
    """The parts of one training, and where it stands.

    Attributes:
        generator: source of the states' noise.
        step: optimizer steps taken.
        best, last: accuracies by their metric's name.
        states: the training's states by their batch size; evaluations have others.
    """

    network: Network
    cost: Cost
    solver: Solver
    estimator: Estimator
    optimizer: torch.optim.Optimizer
    data: Data
    generator: torch.Generator
    seed: int
    epochs: int
    eval_batch_size: int = 1000
    at: Position = field(default_factory=Position)
    step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the data and the network are."""
        return self.data.train.x.device

    @property
    def steps_an_epoch(self) -> int:
        """How many batches the training data are, the last one maybe smaller."""
        return math.ceil(len(self.data.train) / self.data.batch_size)

    def state(self, batch_size: int) -> State:
        """The training's state for batches of that size: the usual one, and the epoch's last."""
        if batch_size not in self.states:
            self.states[batch_size] = self.network.new_state(batch_size, self.generator)
        return self.states[batch_size]

    def evaluation_generator(self) -> torch.Generator:
        """The noise of every evaluation, the same each time."""
        return torch.Generator(self.device).manual_seed(self.seed)

    def note(self, row: Row) -> bool:
        """Keep the best and last accuracies of an epoch's row; whether it is the best yet."""
        before = self.best.get(self.objective_name, -1.0)
        for name, value in row.items():
            if name.startswith("accuracy/"):
                self.last[name] = value
                self.best[name] = max(value, self.best.get(name, 0.0))
        return self.best.get(self.objective_name, -1.0) > before

    def summary(self) -> dict[str, float]:
        """Best and last accuracies: ``best/accuracy/<split>`` and ``last/accuracy/<split>``."""
        best = {f"best/{name}": value for name, value in self.best.items()}
        return best | {f"last/{name}": value for name, value in self.last.items()}

    @property
    def objective(self) -> float:
        """Best validation accuracy, or best test accuracy where there is no validation."""
        return self.best[self.objective_name]

    @property
    def objective_name(self) -> str:
        """The name of the accuracy that runs are compared by."""
        return "accuracy/test" if self.data.validation is None else "accuracy/validation"
