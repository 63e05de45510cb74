"""What a run trains with, where it stands, and what it makes of data."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eqprop.data import Data, Split
from eqprop.estimator import Estimator
from eqprop.network import Cost, Network, State
from eqprop.relaxation import Solver
from eqprop.relaxation.solver import KEPT
from eqprop.training.kept import KeptStates
from eqprop.training.noise import Noise
from eqprop.training.scheduler import Schedule

Row = dict[str, float | int]


@dataclass
class Position:
    """Where a training stands: in which epoch, and what it has found there so far."""

    epoch: int = 1
    batches: int = 0  # how many of the epoch's are done
    correct: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64))
    seconds: float = 0.0


@dataclass
class Session:
    """The parts of one training, and where it stands."""

    network: Network
    cost: Cost
    solver: Solver
    estimator: Estimator
    optimizer: torch.optim.Optimizer
    data: Data
    generator: torch.Generator  # of the states' noise
    seed: int
    epochs: int
    eval_batch_size: int = 1000
    schedule: Schedule = field(default_factory=Schedule)  # of the learning rate
    clip_norm: float | None = None  # the largest norm of the whole gradient
    noise: Noise | None = None  # what disturbs the phases
    at: Position = field(default_factory=Position)
    step: int = 0  # optimizer steps taken
    best: dict[str, float] = field(default_factory=dict)  # accuracies by their metric's name
    last: dict[str, float] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)  # by batch size; evaluations have others
    latest: State | None = None  # of the last step

    def __post_init__(self) -> None:
        own = self.solver.init == "per_example"
        self.kept = KeptStates(len(self.data.train)) if own else None
        if self.noise is not None:
            self.noise.begin(self.network, self.seed)

    @property
    def device(self) -> torch.device:
        """Where the data and the network are."""
        return self.data.train.device

    @property
    def steps_an_epoch(self) -> int:
        """How many batches the training data are, the last one maybe smaller."""
        return math.ceil(len(self.data.train) / self.data.batch_size)

    def state(self, batch_size: int) -> State:
        """The training's state for batches of that size: the usual one, and the epoch's last."""
        if batch_size not in self.states:
            state = self.network.new_state(batch_size, self.generator)
            state.carries = self.solver.init in KEPT
            self.states[batch_size] = state
        return self.states[batch_size]

    def begin_step(self, samples: Tensor) -> None:
        """Put the training's state where a step of these samples (batch,), indices, may start."""
        state = self.state(len(samples))
        if self.kept is not None:
            self.kept.put(state, samples)
        elif state.carries and state is not self.latest:  # none of this size to go on from
            state.reset("zeros")
        self.latest = state

    def end_step(self, samples: Tensor) -> None:
        """Keep what a later step goes on from."""
        if self.kept is not None:
            self.kept.keep(self.state(len(samples)), samples)
        self.schedule.end("step")

    def evaluation_generator(self) -> torch.Generator:
        """The noise of every evaluation, the same each time."""
        return torch.Generator(self.device).manual_seed(self.seed)

    def evaluating(self, state: State) -> AbstractContextManager[None]:
        """Within it a prediction is made as the device makes it that the training is for."""
        noise = self.noise if self.noise is not None and self.noise.evaluated else None
        return nullcontext() if noise is None else noise.disturbing(state)

    def note(self, row: Row) -> bool:
        """Keep the best and last accuracies of an epoch's row; whether it is the best yet."""
        found = {name: value for name, value in row.items() if name.startswith("accuracy/")}
        improved = found.get(self.objective_name, -1.0) > self.best.get(self.objective_name, -1.0)
        self.last |= found
        self.best |= {name: max(value, self.best.get(name, 0.0)) for name, value in found.items()}
        return improved

    def summary(self) -> dict[str, float]:
        """Best and last accuracies: ``best/accuracy/<split>`` and ``last/accuracy/<split>``."""
        found = {"best": self.best, "last": self.last}
        return {f"{k}/{name}": v for k, values in found.items() for name, v in values.items()}

    @property
    def objective_name(self) -> str:
        """The accuracy that runs are compared by: of validation, or test where there is none."""
        return "accuracy/test" if self.data.validation is None else "accuracy/validation"


@torch.no_grad()
def evaluate(
    session: Session, split: Split, look: Callable[[Tensor], None] | None = None
) -> tuple[float, float]:
    """Accuracy and mean energy of the free phase over every sample; changes no bit of a training.

    ``look`` is given each batch's outputs (batch, n_out), which the next batch overwrites.
    """
    generator = session.evaluation_generator()
    correct = torch.zeros((), dtype=torch.int64, device=split.device)
    energy = torch.zeros((), dtype=split.x.dtype, device=split.device)
    state: State | None = None
    for x, y in split.batches(session.eval_batch_size):
        if state is None or state.batch_size != len(x):
            state = session.network.new_state(len(x), generator)
        state.clamp(0, x)
        with session.evaluating(state):
            with state.held():
                session.estimator.predict(session.network, state, session.solver)
                energy += session.network.energies(state).sum()
            with state.reading():
                correct += (state.u[-1].argmax(1) == y).sum()
                if look is not None:
                    look(state.u[-1])
    return float(correct) / len(split), float(energy) / len(split)
