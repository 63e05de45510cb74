"""The loop: relax, nudge, update; evaluate; record."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from eqprop.estimator import Estimate
from eqprop.run.errors import RunError
from eqprop.training.callback import Callback
from eqprop.training.divergence_guard import remedies
from eqprop.training.scheduler import learning_rates
from eqprop.training.session import Position, Row, Session, evaluate
from eqprop.training.step import Batch, PlainStep


@dataclass
class Training:
    """The story of one run."""

    session: Session
    callbacks: Sequence[Callback] = ()  # called in this order
    record: Callable[[Row], None] = lambda row: None  # given one at every log step and epoch
    take_step: PlainStep = field(default_factory=PlainStep)
    log_every: int = 50  # steps between two rows
    eval_every: int = 1  # epochs between two evaluations; the last epoch is always evaluated

    def fit(self) -> float:
        """Train from where it stands to the last epoch, evaluating between; the objective."""
        session = self.session
        try:
            for callback in self.callbacks:
                callback.on_start(session)
            while session.at.epoch <= session.epochs:
                row = self.train_epoch()
                final = session.at.epoch == session.epochs
                if final or session.at.epoch % self.eval_every == 0:
                    row |= self.evaluation(final)
                session.at = Position(session.at.epoch + 1)
                session.schedule.end("epoch")
                self.end_epoch(row)
            if "accuracy/test" not in session.last:  # it goes on to an end that lies behind it
                done = session.at.epoch if session.at.batches else session.at.epoch - 1
                self.end_epoch({"step": session.step, "epoch": done, **self.evaluation(final=True)})
            for callback in self.callbacks:
                callback.on_end(session)
        finally:
            for callback in self.callbacks:
                callback.close()
        return session.best[session.objective_name]

    def train_epoch(self) -> Row:
        """What is left of a pass over the training data; returns the epoch's row."""
        session, at, data = self.session, self.session.at, self.session.data
        start = time.perf_counter() - at.seconds
        at.correct = at.correct.to(session.device)
        for x, y, samples in data.epoch(session.seed, at.epoch, at.batches):
            session.step += 1
            session.begin_step(samples)
            wanted = [callback.before_step(session, x, y) for callback in self.callbacks]
            measure = session.step % self.log_every == 0 or any(wanted)
            estimate, correct = self.take_step(session, self.callbacks, Batch(x, y, measure))
            at.correct += correct
            at.batches += 1
            at.seconds = time.perf_counter() - start
            if measure:
                self.record({"step": session.step, "epoch": at.epoch, **self.measured(estimate)})
            session.end_step(samples)
            for callback in self.callbacks:
                callback.on_step(session, len(x))
        n, right = len(data.train), float(at.correct)  # waits for the device
        seconds = time.perf_counter() - start
        row: Row = {"step": session.step, "epoch": at.epoch, "accuracy/train": right / n}
        return row | {"time/train_s": seconds, "throughput/examples_per_s": n / seconds}

    def measured(self, estimate: Estimate) -> Row:
        """A step's metrics and norms of gradients and weights, or RunError if one is not finite."""
        session = self.session
        for callback in self.callbacks:
            callback.on_measurement(session, estimate)
        row: Row = {**estimate.metrics, **learning_rates(session.optimizer, session.network)}
        named = session.network.named_parameters()
        for (name, parameter), gradient in zip(named, estimate.gradients, strict=True):
            row[f"gradient_norm/{name}"] = float(gradient.norm())
            row[f"weight_norm/{name}"] = float(parameter.detach().norm())
        for name, value in row.items():
            if not math.isfinite(value):
                how = f"lower {remedies(session)}"
                raise RunError(f"step {session.step}: {name} is not finite; {how}")
        return row

    def evaluation(self, final: bool) -> Row:
        """Validation after an epoch, the test set at the end or where there is no validation."""
        session, data = self.session, self.session.data
        start, row = time.perf_counter(), Row()
        if data.validation is not None:
            row["accuracy/validation"], _ = evaluate(session, data.validation)
        if final or data.validation is None:
            row["accuracy/test"], row["energy/test"] = evaluate(session, data.test)
        row["time/eval_s"] = time.perf_counter() - start
        return row

    def end_epoch(self, row: Row) -> None:
        """Record an epoch, and tell the callbacks."""
        improved = self.session.note(row)
        self.record(row)
        for callback in self.callbacks:
            callback.on_epoch(self.session, row, improved)
