"""The loop: relax, nudge, update; evaluate; record."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from eqprop.data import Data, Split, epoch_order, one_hot
from eqprop.energy import EnergyBasedModel
from eqprop.estimator import Estimate, Estimator
from eqprop.relaxation import Solver
from eqprop.run.errors import RunError
from eqprop.training.health import Health
from eqprop.training.inspection import Inspection
from eqprop.training.keeper import Keeper
from eqprop.training.step import PlainStep, Step

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
class Training:
    """Everything one run trains with; ``fit`` is its story."""

    model: EnergyBasedModel
    solver: Solver
    estimator: Estimator
    optimizer: torch.optim.Optimizer
    data: Data
    seed: int
    epochs: int
    log_every: int = 50
    eval_every: int = 1
    eval_batch_size: int = 1000
    record: Callable[[Row], None] = lambda row: None
    advance: Callable[[int], None] = lambda samples: None
    keeper: Keeper = field(default_factory=Keeper)
    health: Health = field(default_factory=Health)
    inspection: Inspection = field(default_factory=Inspection)
    take_step: Step = field(default_factory=PlainStep)
    at: Position = field(default_factory=Position)
    step: int = field(default=0, init=False)
    best: dict[str, float] = field(default_factory=dict, init=False)
    last: dict[str, float] = field(default_factory=dict, init=False)

    def fit(self) -> float:
        """Train from where it stands to the last epoch, evaluating between; the objective."""
        while self.at.epoch <= self.epochs:
            row = self.train_epoch()
            final = self.at.epoch == self.epochs
            if final or self.at.epoch % self.eval_every == 0:
                row |= self.evaluation(final)
            improved = self.note(row)
            self.inspection.after_epoch(self, final)
            self.at = Position(self.at.epoch + 1)
            self.keeper.after_epoch(self, improved)
        if "accuracy/test" not in self.last:  # it goes on to an end that lies behind it
            done = self.at.epoch if self.at.batches else self.at.epoch - 1
            row = {"step": self.step, "epoch": done, **self.evaluation(final=True)}
            self.keeper.after_epoch(self, self.note(row))
        self.inspection.at_end(self)
        return self.objective

    def train_epoch(self) -> Row:
        """What is left of a pass over the training data; returns the epoch's row."""
        at, train = self.at, self.data.train
        start = time.perf_counter() - at.seconds
        at.correct = at.correct.to(train.x.device)
        order = epoch_order(len(train), self.seed, at.epoch)[at.batches * self.data.batch_size :]
        for x, y in train.batches(self.data.batch_size, order):
            self.step += 1
            measure = self.step % self.log_every == 0
            self.health.begin(self)
            estimate, correct = self.take_step(self, x, y, measure)
            at.correct += correct
            at.batches += 1
            at.seconds = time.perf_counter() - start
            if measure:
                self.record({"step": self.step, "epoch": at.epoch, **self.measurements(estimate)})
            self.advance(len(x))
            self.keeper.after_step(self)
        accuracy = float(at.correct) / len(train)  # waits for the device: the time below is whole
        self.health.check_weights(self)
        seconds = time.perf_counter() - start
        return {
            "step": self.step,
            "epoch": at.epoch,
            "accuracy/train": accuracy,
            "time/train_s": seconds,
            "throughput/examples_per_s": len(train) / seconds,
        }

    def update(self, x: Tensor, y: Tensor, measure: bool) -> Estimate:
        """One training step on a batch: clamp, estimate the gradient, move the weights."""
        self.model.resize(len(x))
        self.model.clamp_layer(0, x)
        target = one_hot(y, self.data.n_classes, x.dtype)
        estimate = self.estimator.estimate(self.model, self.solver, target, measure)
        self.health.check(self, estimate)
        for parameter, gradient in zip(self.model.parameters(), estimate.gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        return estimate

    def measurements(self, estimate: Estimate) -> Row:
        """What a log line holds: the estimate's metrics and the norms of gradients and weights."""
        self.health.settle(self)
        self.health.warn_if_far(self, estimate)
        row: Row = dict(estimate.metrics)
        for (name, parameter), gradient in zip(
            self.model.named_parameters(), estimate.gradients, strict=True
        ):
            row[f"gradient_norm/{name}"] = float(gradient.norm())
            row[f"weight_norm/{name}"] = float(parameter.detach().norm())
        wrong = [name for name, value in row.items() if not math.isfinite(value)]
        if wrong:
            raise RunError(
                f"step {self.step}: {wrong[0]} is not finite; "
                "lower dynamics.dt, optimizer.lr or estimator.beta"
            )
        return row

    def evaluation(self, final: bool) -> Row:
        """Validation after an epoch, the test set at the end or where there is no validation."""
        start, row = time.perf_counter(), Row()
        if self.data.validation is not None:
            row["accuracy/validation"], _ = self.evaluate(self.data.validation)
        if final or self.data.validation is None:
            look = self.inspection.see if final else None
            row["accuracy/test"], row["energy/test"] = self.evaluate(self.data.test, look)
        row["time/eval_s"] = time.perf_counter() - start
        return row

    @torch.no_grad()
    def evaluate(
        self, split: Split, look: Callable[[Tensor], None] | None = None
    ) -> tuple[float, float]:
        """Accuracy and mean energy of the free phase over every sample of ``split``.

        ``look`` is given each batch's outputs (batch, n_out), which the next batch overwrites.
        Its noise comes from a generator of its own, so that evaluating changes nothing else.
        """
        generator, self.model.generator = self.model.generator, self.evaluation_generator()
        correct = torch.zeros((), dtype=torch.int64, device=split.x.device)
        energy = torch.zeros((), dtype=split.x.dtype, device=split.x.device)
        for x, y in split.batches(self.eval_batch_size):
            self.model.resize(len(x))
            self.model.clamp_layer(0, x)
            with self.model.holding_weights():
                self.solver.free_phase(self.model)
                energy += self.model.E.sum()
            correct += (self.model.u[-1].argmax(1) == y).sum()
            if look is not None:
                look(self.model.u[-1])
        self.model.generator = generator
        return float(correct) / len(split), float(energy) / len(split)

    def evaluation_generator(self) -> torch.Generator:
        """The noise of every evaluation, the same each time."""
        return torch.Generator(self.data.test.x.device).manual_seed(self.seed)

    def note(self, row: Row) -> bool:
        """Keep the best and last accuracies, and record the epoch; whether it is the best yet."""
        before = self.best.get(self.objective_name, -1.0)
        for name, value in row.items():
            if name.startswith("accuracy/"):
                self.last[name] = value
                self.best[name] = max(value, self.best.get(name, 0.0))
        self.record(row)
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
