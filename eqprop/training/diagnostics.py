"""What a run shows besides numbers: phases, pictures, mistakes. Looking changes nothing."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from eqprop.data import one_hot
from eqprop.data.picture import mosaic, picture
from eqprop.network import Edge
from eqprop.run.errors import UserError
from eqprop.run.redact import redact
from eqprop.run.text import one_line
from eqprop.tracking.base import (
    CheckpointFile,
    ConfusionMatrix,
    Curve,
    Mistake,
    Mistakes,
    Picture,
)
from eqprop.training.callback import Callback
from eqprop.training.session import Row, Session, evaluate
from eqprop.training.snapshot import random_states_kept

log = logging.getLogger(__name__)

Things = Iterator[tuple[str, object]]
WORST = 25  # mistakes are shown
FILTERS, SAMPLES, CHANNELS = 64, 8, 16  # and pictures of weights; of states, so many of so many


@dataclass
class Diagnostics(Callback):
    """Looks at the relaxation after some epochs, at the test set and the network at the end."""

    show: Callable[[str, object, int], None]  # is given a name, what was found, and the step
    curves_every: int | None = None  # epochs between two looks at the relaxation; and the last
    checkpoints: Path | None = None  # the folder of best.pt and last.pt

    def on_epoch(self, session: Session, row: Row, improved: bool) -> None:
        every, epoch = self.curves_every, int(row["epoch"])
        due = every is not None and (epoch == session.epochs or epoch % every == 0)
        if due and "time/train_s" in row:
            self._show(session, partial(curves, epoch=epoch))

    def on_end(self, session: Session) -> None:
        self._show(session, answers)
        self._show(session, pictures)
        for alias in ("best", "last"):  # they are complete now
            path = self.checkpoints and self.checkpoints / f"{alias}.pt"
            if path and path.exists():
                self.show(f"checkpoint/{alias}", CheckpointFile(path, alias), session.step)

    def _show(self, session: Session, look: Callable[[Session], Things]) -> None:
        try:
            with random_states_kept(session):
                found = list(look(session))
        except Exception as error:  # what a foreign energy cannot show must not cost its run
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            reason = redact(one_line(f"{kind}{error}", 300))
            what = "curves, pictures or mistakes cannot be shown"
            log.warning("%s; the run goes on (%s)", what, reason)
            self.curves_every = None
            return
        for name, item in found:
            self.show(name, item, session.step)


@torch.no_grad()
def curves(session: Session, epoch: int) -> Things:
    """The free and the nudged phases of the first training samples, always the same ones."""
    network, solver, data = session.network, session.solver, session.data
    x, y = next(data.train.batches(data.batch_size))
    state = network.new_state(len(x), session.evaluation_generator())
    state.clamp(0, x)
    with state.held():
        n_steps = 0 if solver.initialise(network, state) else solver.n_relax
        free, target = state.copy(), one_hot(y, data.n_classes, x.dtype)
        nudges = session.estimator.nudges(session.cost, target)
        for phase, nudge in itertools.chain([("free", None)], nudges):
            state.restore(free)
            energy, residual = map(tuple, solver.trace(network, state, nudge, n_steps))
            yield f"curves/{phase}", Curve(epoch, session.step, phase, energy, residual)
            if nudge is None:
                free, n_steps = state.copy(), solver.n_nudged


@torch.no_grad()
def pictures(session: Session) -> Things:
    """The first layer's weights, and some samples' states of the first layer of pictures.

    A row of the states is a sample, always the same ones; a column is a channel.
    """
    network = session.network
    for edge in network.out_of[0]:
        if (found := filters(edge, session.data.sample_shape)) is not None:
            yield f"filters/{edge.target}", Picture(mosaic(found, math.isqrt(len(found) - 1) + 1))
            break
    shown = [layer for layer in range(1, network.n_layers) if _is_picture(network.shapes[layer])]
    if shown:
        x, _ = next(session.data.train.batches(SAMPLES))
        state = network.new_state(len(x), session.evaluation_generator())
        state.clamp(0, x)
        with state.held():
            session.estimator.predict(network, state, session.solver)
        states = state.u[shown[0]][:, :CHANNELS]
        rows = states.flatten(0, 1).unsqueeze(1)
        yield f"states/{shown[0]}", Picture(mosaic(rows, states.shape[1]))


def filters(edge: Edge, sample_shape: Sequence[int]) -> Tensor | None:
    """The weights (n, 1 or 3, height, width) from the input to each channel, or unit, above.

    None where they are no pictures.
    """
    weight = getattr(edge, "weight", None)
    if not isinstance(weight, Tensor):
        return None
    shape = tuple(sample_shape) if weight.dim() == 2 else tuple(weight.shape[1:])
    if not _is_picture(shape) or shape[0] not in (1, 3) or weight[0].numel() != math.prod(shape):
        return None
    return weight.detach()[:FILTERS].reshape(-1, *shape)


def _is_picture(shape: Sequence[int]) -> bool:
    return len(shape) == 3 and min(shape[1:]) > 1


def answers(session: Session) -> Things:
    """What the network makes of the test set."""
    found: list[Tensor] = []
    evaluate(session, session.data.test, lambda output: found.append(output.clone()))
    outputs = torch.cat(found)
    yield "confusion/test", confusion(session, outputs)
    yield "mistakes/test", mistakes(session, outputs)


def confusion(session: Session, outputs: Tensor) -> ConfusionMatrix:
    """Of the test set, given the outputs (n, classes) for all its samples."""
    n, y = session.data.n_classes, session.data.test.y
    counts = torch.bincount(y * n + outputs.argmax(1), minlength=n * n).view(n, n)
    return ConfusionMatrix(tuple(map(tuple, counts.tolist())), tuple(map(str, range(n))))


@torch.no_grad()
def mistakes(session: Session, outputs: Tensor) -> Mistakes:
    """Those of the test set that cost most, given the outputs (n, classes) for all its samples."""
    data, y = session.data, session.data.test.y
    predicted, probability = outputs.argmax(1), outputs.float().softmax(1)
    cost = session.cost.cost(outputs, one_hot(y, data.n_classes, outputs.dtype)).float()
    wrong = (predicted != y).nonzero().flatten()
    found = []
    for index in wrong[cost[wrong].argsort(descending=True, stable=True)[:WORST]].tolist():
        truth, answer = int(y[index]), int(predicted[index])
        likely = probability[index].tolist()
        image = picture(data.test.x[index], data.sample_shape)
        numbers = likely[answer], likely[truth], float(cost[index])
        found.append(Mistake(index, truth, answer, *numbers, image))
    return Mistakes(tuple(found), tuple(map(str, range(data.n_classes))))
