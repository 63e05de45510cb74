"""The loop: relax, nudge, update; evaluate; record."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from eqprop.estimator import Estimate
from eqprop.run.errors import RunError
from eqprop.run.text import show
from eqprop.training.callback import Callback
from eqprop.training.divergence_guard import remedies
from eqprop.training.scheduler import learning_rates
from eqprop.training.session import Position, Row, Session, evaluate
from eqprop.training.step import Batch, PlainStep

log = logging.getLogger(__name__)


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
            while session.at.epoch <= session.epochs and session.stopped is None:
                self.end_epoch(self.train_epoch())
            done = session.at.epoch if session.at.batches else session.at.epoch - 1
            if session.last.get("epoch") != done or "accuracy/test" not in session.last:
                row: Row = {"step": session.step, "epoch": done}  # of an end that lies behind it
                self.evaluate(row, final=True)
                self.keep(row)
            for callback in self.callbacks:
                callback.on_end(session)
        finally:
            for callback in self.callbacks:
                callback.close()
        if session.stopped is not None:
            log.info("stopped after epoch %d: %s", session.at.epoch - 1, session.stopped)
        return session.best[session.objective_name]

    def train_epoch(self) -> Row:
        """What is left of a pass over the training data; returns the epoch's row."""
        session, at, data = self.session, self.session.at, self.session.data
        start = time.perf_counter() - at.seconds
        at.correct, at.cost = at.correct.to(session.device), at.cost.to(session.device)
        for x, y, samples in data.epoch(session.seed, at.epoch, at.batches):
            session.step += 1
            session.begin_step(samples)
            wanted = [callback.before_step(session, x, y) for callback in self.callbacks]
            measure = session.step % self.log_every == 0 or any(wanted)
            taken = self.take_step(session, self.callbacks, Batch(x, y, measure))
            at.correct += taken.correct
            at.cost += taken.cost
            at.batches += 1
            at.seconds = time.perf_counter() - start
            if measure:
                self.record(
                    {"step": session.step, "epoch": at.epoch, **self.measured(taken.estimate)}
                )
            session.end_step(samples)
            for callback in self.callbacks:
                callback.on_step(session, len(x))
        n, right = len(data.train), float(at.correct)  # waits for the device
        seconds = time.perf_counter() - start
        row: Row = {"step": session.step, "epoch": at.epoch, "accuracy/train": right / n}
        row |= {"cost/train": float(at.cost) / n}
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

    def evaluate(self, row: Row, final: bool) -> None:
        """Validation after an epoch; the test set at the end, and for the best model so far."""
        session, data = self.session, self.session.data
        start = time.perf_counter()
        if data.validation is not None and "accuracy/validation" not in row:
            found = evaluate(session, data.validation)
            row |= {"accuracy/validation": found.accuracy, "cost/validation": found.cost}
        if final or data.validation is None or session.improves(row):
            found = evaluate(session, data.test)
            row |= {"accuracy/test": found.accuracy, "cost/test": found.cost}
            row["energy/test"] = found.energy
        row["time/eval_s"] = row.get("time/eval_s", 0.0) + time.perf_counter() - start

    def end_epoch(self, row: Row) -> None:
        """Evaluate an epoch where that is due, tell the callbacks, and record it."""
        session, epoch = self.session, int(row["epoch"])
        session.at = Position(epoch + 1)
        session.schedule.end("epoch")
        final = epoch == session.epochs
        if final or epoch % self.eval_every == 0:
            self.evaluate(row, final)
        for callback in self.callbacks:
            callback.on_epoch(session, row, session.improves(row))
        if session.stopped is not None and "accuracy/test" not in row:
            self.evaluate(row, final=True)
        refuse_no_numbers(row)
        self.keep(row)

    def keep(self, row: Row) -> None:
        """Record a row, and have it and the training saved."""
        improved = self.session.note(row)
        self.record(row)
        for callback in self.callbacks:
            callback.on_recorded(self.session, row, improved)


def refuse_no_numbers(row: Row) -> None:
    """Raise RunError where a callback has put something else into an epoch's row."""
    for name, value in row.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            what = f"a callback recorded {show(value)}, which is no number: use float(…)"
            raise RunError(f"epoch {row['epoch']}: {name}: {what}")
