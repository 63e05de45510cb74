"""What a run shows besides numbers: how its phases relax, its confusions, its worst mistakes.

Looking changes nothing: no weight, no state and no random number of the training.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from eqprop.data import one_hot
from eqprop.data.picture import picture
from eqprop.run.errors import UserError
from eqprop.run.files import one_line
from eqprop.run.redact import redact
from eqprop.tracking.items import CheckpointFile, ConfusionMatrix, Curve, Mistake, Mistakes
from eqprop.training.snapshot import undone

if TYPE_CHECKING:
    from eqprop.training.loop import Training

log = logging.getLogger(__name__)

Show = Callable[[str, object, int], None]
Things = Iterator[tuple[str, object]]
WORST = 25
"""How many mistakes are shown."""


class Inspection:
    """Called by the training at the ends of epochs and of the run.

    Args:
        show: who gets what is found, by name and step; None: nothing is looked at.
        curves_every: epochs between two looks at the relaxation; None for none. The last epoch is
            looked at in any case.
        checkpoints: the folder of best.pt and last.pt.
    """

    def __init__(
        self,
        show: Show | None = None,
        curves_every: int | None = None,
        checkpoints: Path | None = None,
    ) -> None:
        self.show = show
        self.curves_every = curves_every
        self.checkpoints = checkpoints
        self._outputs: list[Tensor] = []

    def see(self, output: Tensor) -> None:
        """Keep one batch's outputs (batch, classes) of the last evaluation of the test set."""
        if self.show is not None:
            self._outputs.append(output.detach().clone())

    def after_epoch(self, training: Training, final: bool) -> None:
        """Look at how the phases relax, if it is time to."""
        every = self.curves_every
        if every is not None and (final or training.at.epoch % every == 0):
            self._show(training, curves)

    def at_end(self, training: Training) -> None:
        """Look at the test set as the final weights see it; the checkpoints are complete now."""
        self._show(training, self._answers)
        for alias in ("best", "last"):
            path = None if self.checkpoints is None else self.checkpoints / f"{alias}.pt"
            if self.show is not None and path is not None and path.exists():
                self.show(f"checkpoint/{alias}", CheckpointFile(path, alias), training.step)

    def _show(self, training: Training, look: Callable[[Training], Things]) -> None:
        if self.show is None:
            return
        try:
            with undone(training):
                found = list(look(training))
        except Exception as error:  # what a foreign energy cannot show must not cost its run
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            reason = redact(one_line(f"{kind}{error}"))
            log.warning("curves or mistakes cannot be shown; the run goes on (%s)", reason)
            self.curves_every = None
            return
        for name, item in found:
            self.show(name, item, training.step)

    def _answers(self, training: Training) -> Things:
        if not self._outputs:  # every epoch was done before this process began
            training.evaluate(training.data.test, self.see)
        outputs, self._outputs = torch.cat(self._outputs), []
        yield "confusion/test", confusion(training, outputs)
        yield "mistakes/test", mistakes(training, outputs)


@torch.no_grad()
def curves(training: Training) -> Things:
    """The free and the nudged phase of the first training samples, always the same ones."""
    model, solver, data = training.model, training.solver, training.data
    x, y = (part[: data.batch_size] for part in (data.train.x, data.train.y))
    model.generator = training.evaluation_generator()
    model.resize(len(x))
    model.clamp_layer(0, x)
    model.set_C_target(None)
    at_rest = solver.initialise(model)
    yield _curve(training, "free", 0 if at_rest else solver.n_relax)
    model.c_energy.beta = training.estimator.beta
    model.set_C_target(one_hot(y, data.n_classes, x.dtype))
    yield _curve(training, "nudged", solver.n_nudged)


def _curve(training: Training, phase: str, n_steps: int) -> tuple[str, Curve]:
    energy, residual = training.solver.trace(training.model, n_steps)
    found = Curve(training.at.epoch, training.step, phase, tuple(energy), tuple(residual))
    return f"curves/{phase}", found


def confusion(training: Training, outputs: Tensor) -> ConfusionMatrix:
    """Of the test set, given the outputs (n, classes) for all its samples."""
    n, y = training.data.n_classes, training.data.test.y
    counts = torch.bincount(y * n + outputs.argmax(1), minlength=n * n).view(n, n)
    return ConfusionMatrix(tuple(map(tuple, counts.tolist())), _classes(training))


@torch.no_grad()
def mistakes(training: Training, outputs: Tensor) -> Mistakes:
    """Those of the test set that cost most, given the outputs (n, classes) for all its samples."""
    data, y = training.data, training.data.test.y
    predicted = outputs.argmax(1)
    wrong = (predicted != y).nonzero().flatten()
    target = one_hot(y[wrong], data.n_classes, outputs.dtype)
    cost = training.model.c_energy.cost(outputs[wrong], target).float()
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
    return Mistakes(tuple(found), _classes(training))


def _classes(training: Training) -> tuple[str, ...]:
    return tuple(str(number) for number in range(training.data.n_classes))
