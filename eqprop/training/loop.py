"""The loop: relax, nudge, update; evaluate; record."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from eqprop.data import epoch_order
from eqprop.run.errors import RunError
from eqprop.training.callback import Callback
from eqprop.training.divergence_guard import remedies
from eqprop.training.evaluation import evaluate
from eqprop.training.session import Position, Row, Session
from eqprop.training.step import PlainStep, Step, Stepped


class Training:
    """The story of one run.

    Args:
        session: what it trains with, and where it stands.
        callbacks: what watches it, in the order in which they are called.
        record: is given a row of metrics at every log step and after every epoch.
        look: is given each batch's outputs of the last evaluation of the test set.
        take_step: how a step is taken.
        log_every: steps between two rows.
        eval_every: epochs between two evaluations; the last epoch is always evaluated.
    """

    def __init__(
        self,
        session: Session,
        callbacks: Sequence[Callback] = (),
        record: Callable[[Row], None] = lambda row: None,
        look: Callable[..., None] | None = None,
        take_step: Step | None = None,
        log_every: int = 50,
        eval_every: int = 1,
    ) -> None:
        self.session = session
        self.callbacks = list(callbacks)
        self.record = record
        self.look = look
        self.take_step = take_step or PlainStep()
        self.log_every = log_every
        self.eval_every = eval_every

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
                self.end_epoch(row)
            if "accuracy/test" not in session.last:  # it goes on to an end that lies behind it
                done = session.at.epoch if session.at.batches else session.at.epoch - 1
                self.end_epoch({"step": session.step, "epoch": done, **self.evaluation(final=True)})
            for callback in self.callbacks:
                callback.on_end(session)
        finally:
            for callback in self.callbacks:
                callback.close()
        return session.objective

    def train_epoch(self) -> Row:
        """What is left of a pass over the training data; returns the epoch's row."""
        session, at, data = self.session, self.session.at, self.session.data
        start = time.perf_counter() - at.seconds
        at.correct = at.correct.to(session.device)
        order = epoch_order(len(data.train), session.seed, at.epoch)
        for x, y in data.train.batches(data.batch_size, order[at.batches * data.batch_size :]):
            session.step += 1
            measure = session.step % self.log_every == 0
            stepped = self.take_step(session, self.callbacks, x, y, measure)
            at.correct += stepped.correct
            at.batches += 1
            at.seconds = time.perf_counter() - start
            if measure:
                self.record({"step": session.step, "epoch": at.epoch, **self.measured(stepped)})
            for callback in self.callbacks:
                callback.on_step(session, len(x))
        accuracy = float(at.correct) / len(data.train)  # waits for the device
        seconds = time.perf_counter() - start
        return {
            "step": session.step,
            "epoch": at.epoch,
            "accuracy/train": accuracy,
            "time/train_s": seconds,
            "throughput/examples_per_s": len(data.train) / seconds,
        }

    def measured(self, stepped: Stepped) -> Row:
        """What a row holds of a step: its metrics, and the norms of gradients and weights.

        Raises:
            RunError: if one of them is not finite.
        """
        session, estimate = self.session, stepped.estimate
        for callback in self.callbacks:
            callback.on_measurement(session, estimate)
        row: Row = dict(estimate.metrics)
        named = session.network.named_parameters()
        for (name, parameter), gradient in zip(named, estimate.gradients, strict=True):
            row[f"gradient_norm/{name}"] = float(gradient.norm())
            row[f"weight_norm/{name}"] = float(parameter.detach().norm())
        wrong = [name for name, value in row.items() if not math.isfinite(value)]
        if wrong:
            raise RunError(
                f"step {session.step}: {wrong[0]} is not finite; lower {remedies(session)}"
            )
        return row

    def evaluation(self, final: bool) -> Row:
        """Validation after an epoch, the test set at the end or where there is no validation."""
        session, data = self.session, self.session.data
        start, row = time.perf_counter(), Row()
        if data.validation is not None:
            row["accuracy/validation"], _ = evaluate(session, data.validation)
        if final or data.validation is None:
            look = self.look if final else None
            row["accuracy/test"], row["energy/test"] = evaluate(session, data.test, look)
        row["time/eval_s"] = time.perf_counter() - start
        return row

    def end_epoch(self, row: Row) -> None:
        """Record an epoch, and tell the callbacks."""
        improved = self.session.note(row)
        self.record(row)
        for callback in self.callbacks:
            callback.on_epoch(self.session, row, improved)
