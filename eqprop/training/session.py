"""What a run trains with, where it stands, and what it makes of data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eqprop.data import Data, Split, one_hot
from eqprop.estimator import Estimator
from eqprop.network import Cost, Network, State
from eqprop.relaxation import Solver
from eqprop.relaxation.settings import KEPT
from eqprop.training.kept import KeptStates
from eqprop.training.noise import Noise
from eqprop.training.predictor import Answering
from eqprop.training.scheduler import Schedule

Row = dict[str, float | int]

_RESULTS = ("accuracy/", "cost/")  # what a summary has of an epoch


@dataclass
class Position:
    """Where a training stands: in which epoch, and what it has found there so far."""

    epoch: int = 1
    batches: int = 0  # how many of the epoch's are done
    correct: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64))
    cost: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))  # a sum
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
    best: dict[str, float] = field(default_factory=dict)  # of the epoch with the best objective
    last: dict[str, float] = field(default_factory=dict)  # of the last evaluated epoch
    stopped: str | None = None  # why it ends before its last epoch
    callbacks: dict[str, Any] = field(default_factory=dict)  # of the configuration, by name
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

    def answering(self) -> Answering:
        """What an evaluation is made by."""
        noise = self.noise if self.noise is not None and self.noise.evaluated else None
        return Answering(self.network, self.solver, self.estimator, self.seed, noise)

    def stop(self, reason: str) -> None:
        """Have the training end, as done, with the epoch that it is in; the first reason counts."""
        self.stopped = self.stopped or reason

    def improves(self, row: Row) -> bool:
        """Whether an epoch's row has a better objective than all before it."""
        return row.get(self.objective_name, -1.0) > self.best.get(self.objective_name, -1.0)

    def note(self, row: Row) -> bool:
        """Keep what an evaluated epoch's row says of its model; whether it is the best yet."""
        found = {name: row[name] for name in row if name == "epoch" or name.startswith(_RESULTS)}
        improved = self.improves(row)
        if improved:
            self.best = found
        if self.objective_name in row:
            self.last = found
        return improved

    def summary(self) -> dict[str, float]:
        """The selected epoch's results, ``best/…``, and the last evaluated one's, ``last/…``.

        Each is of one model: ``best/epoch``, ``best/accuracy/<split>``, ``best/cost/<split>``.
        """
        found = {"best": self.best, "last": self.last}
        return {f"{k}/{name}": v for k, values in found.items() for name, v in values.items()}

    def results(self) -> dict[str, Any]:
        """The same for ``status.json``, with what selected the best epoch; None: not finite."""
        found = {"best": self.best, "last": self.last}
        finite = {
            which: {name: v if math.isfinite(v) else None for name, v in values.items()}
            for which, values in found.items()
        }
        return {"selected_by": self.objective_name, **finite}

    @property
    def objective_name(self) -> str:
        """The accuracy that runs are compared by: of validation, or test where there is none."""
        return "accuracy/test" if self.data.validation is None else "accuracy/validation"


class Evaluation(NamedTuple):
    """Of a split: the share that is right, and means over its samples at the free phase's end."""

    accuracy: float
    energy: float  # E
    cost: float  # C, not multiplied by beta


@torch.no_grad()
def evaluate(
    session: Session, split: Split, look: Callable[[Tensor], None] | None = None
) -> Evaluation:
    """Accuracy, mean energy and mean cost over every sample; changes no bit of a training.

    What a sample is evaluated to depends on the weights, the seed and the sample, whatever batch it
    is in: up to rounding, which a matrix product's shape decides.

    ``look`` is given each batch's outputs (batch, n_out), which the next batch overwrites.
    """
    answering = session.answering()
    correct = torch.zeros((), dtype=torch.int64, device=split.device)
    energy = torch.zeros((), dtype=torch.float64, device=split.device)
    cost = torch.zeros((), dtype=torch.float64, device=split.device)
    for x, y in split.batches(session.eval_batch_size):
        with answering.to(x) as state:
            energy += session.network.energies(state).sum(dtype=torch.float64)
            with state.reading():
                output = state.u[-1]
                target = one_hot(y, session.data.n_classes, output.dtype)
                correct += (output.argmax(1) == y).sum()
                cost += session.cost.cost(output, target).sum(dtype=torch.float64)
                if look is not None:
                    look(output)
    return Evaluation(*(float(total) / len(split) for total in (correct, energy, cost)))
