"""What a run shows besides numbers: how its phases relax, its confusions, its worst mistakes.

Looking changes nothing: it has a state of its own, and no random number of the training is drawn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from eqprop.data import one_hot
from eqprop.data.picture import picture
from eqprop.network import Nudge
from eqprop.run.errors import UserError
from eqprop.run.redact import redact
from eqprop.run.text import one_line
from eqprop.tracking.items import CheckpointFile, ConfusionMatrix, Curve, Mistake, Mistakes
from eqprop.training.callback import Callback
from eqprop.training.evaluation import evaluate
from eqprop.training.session import Row, Session
from eqprop.training.snapshot import random_states_kept

log = logging.getLogger(__name__)

Show = Callable[[str, object, int], None]
Things = Iterator[tuple[str, object]]
WORST = 25
"""How many mistakes are shown."""


class Diagnostics(Callback):
    """Looks at the relaxation after some epochs, and at the test set at the end.

    Args:
        show: who gets what is found, by name and step.
        curves_every: epochs between two looks at the relaxation; None for none. The last epoch is
            looked at in any case.
        checkpoints: the folder of best.pt and last.pt.
    """

    def __init__(
        self, show: Show, curves_every: int | None = None, checkpoints: Path | None = None
    ) -> None:
        self.show = show
        self.curves_every = curves_every
        self.checkpoints = checkpoints
        self._outputs: list[Tensor] = []

    def see(self, output: Tensor) -> None:
        """Keep one batch's outputs (batch, classes) of the last evaluation of the test set."""
        self._outputs.append(output.detach().clone())

    def on_epoch(self, session: Session, row: Row, improved: bool) -> None:
        every, epoch = self.curves_every, int(row["epoch"])
        if "time/train_s" not in row or every is None:
            return
        if epoch == session.epochs or epoch % every == 0:
            self._show(session, lambda session: curves(session, epoch))

    def on_end(self, session: Session) -> None:
        self._show(session, self._answers)
        for alias in ("best", "last"):  # they are complete now
            path = None if self.checkpoints is None else self.checkpoints / f"{alias}.pt"
            if path is not None and path.exists():
                self.show(f"checkpoint/{alias}", CheckpointFile(path, alias), session.step)

    def _show(self, session: Session, look: Callable[[Session], Things]) -> None:
        try:
            with random_states_kept(session):
                found = list(look(session))
        except Exception as error:  # what a foreign energy cannot show must not cost its run
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            reason = redact(one_line(f"{kind}{error}", 300))
            log.warning("curves or mistakes cannot be shown; the run goes on (%s)", reason)
            self.curves_every = None
            return
        for name, item in found:
            self.show(name, item, session.step)

    def _answers(self, session: Session) -> Things:
        if not self._outputs:  # every epoch was done before this process began
            evaluate(session, session.data.test, self.see)
        outputs, self._outputs = torch.cat(self._outputs), []
        yield "confusion/test", confusion(session, outputs)
        yield "mistakes/test", mistakes(session, outputs)


@torch.no_grad()
def curves(session: Session, epoch: int) -> Things:
    """The free and the nudged phases of the first training samples, always the same ones."""
    network, solver, data = session.network, session.solver, session.data
    x, y = (part[: data.batch_size] for part in (data.train.x, data.train.y))
    state = network.new_state(len(x), session.evaluation_generator())
    state.clamp(0, x)
    with state.held():
        at_rest = solver.initialise(network, state)

        def curve(phase: str, nudge: Nudge | None, n_steps: int) -> tuple[str, Curve]:
            energy, residual = solver.trace(network, state, nudge, n_steps)
            found = Curve(epoch, session.step, phase, tuple(energy), tuple(residual))
            return f"curves/{phase}", found

        yield curve("free", None, 0 if at_rest else solver.n_relax)
        free = state.copy()
        target = one_hot(y, data.n_classes, x.dtype)
        for phase, nudge in session.estimator.nudges(session.cost, target):
            state.restore(free)
            yield curve(phase, nudge, solver.n_nudged)


def confusion(session: Session, outputs: Tensor) -> ConfusionMatrix:
    """Of the test set, given the outputs (n, classes) for all its samples."""
    n, y = session.data.n_classes, session.data.test.y
    counts = torch.bincount(y * n + outputs.argmax(1), minlength=n * n).view(n, n)
    return ConfusionMatrix(tuple(map(tuple, counts.tolist())), _classes(session))


@torch.no_grad()
def mistakes(session: Session, outputs: Tensor) -> Mistakes:
    """Those of the test set that cost most, given the outputs (n, classes) for all its samples."""
    data, y = session.data, session.data.test.y
    predicted = outputs.argmax(1)
    wrong = (predicted != y).nonzero().flatten()
    target = one_hot(y[wrong], data.n_classes, outputs.dtype)
    cost = session.cost.cost(outputs[wrong], target).float()
    worst = cost.argsort(descending=True, stable=True)[:WORST]
    probability = outputs[wrong].float().softmax(1)
    found = []
    for place in worst.tolist():
        index = int(wrong[place])
        answer, truth = int(predicted[index]), int(y[index])
        found.append(
            Mistake(
                index=index,
                target=truth,
                predicted=answer,
                probability=float(probability[place, answer]),
                target_probability=float(probability[place, truth]),
                cost=float(cost[place]),
                picture=picture(data.test.x[index], data.sample_shape),
            )
        )
    return Mistakes(tuple(found), _classes(session))


def _classes(session: Session) -> tuple[str, ...]:
    return tuple(str(number) for number in range(session.data.n_classes))
