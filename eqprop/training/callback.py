"""The seam for what watches a training."""

from __future__ import annotations

from torch import Tensor

from eqprop.estimator import Estimate
from eqprop.training.session import Row, Session


class Callback:
    """Called at the boundaries of a training; each method may be left out.

    One of the configuration that has ``state_dict`` and ``load_state_dict`` is saved and resumed.
    """

    def on_start(self, session: Session) -> None:
        """Before the first step, of a resumed run too."""

    def before_step(self, session: Session, x: Tensor, y: Tensor) -> bool:
        """Before a step on these inputs (batch, *shape) and classes (batch,).

        Whether it is to be measured and recorded, whatever ``trainer.log_every`` says.
        """
        return False

    def on_gradient(self, session: Session, estimate: Estimate) -> None:
        """When the gradient is there and no weight has moved; a captured step replays it."""

    def on_measurement(self, session: Session, estimate: Estimate) -> None:
        """After a step that is recorded: what is put into ``estimate.metrics`` is in its row."""

    def on_step(self, session: Session, samples: int) -> None:
        """When a step of so many samples is whole: weights moved, row recorded."""

    def on_epoch(self, session: Session, row: Row, improved: bool) -> None:
        """When an epoch is whole: numbers that are put into ``row`` are recorded with it.

        ``row["epoch"]`` is the one that has ended; ``improved``: its objective is the best so far.
        ``session.stop(reason)`` has the training end with this epoch.
        """

    def on_recorded(self, session: Session, row: Row, improved: bool) -> None:
        """When an epoch's row is recorded: the moment to save."""

    def on_end(self, session: Session) -> None:
        """When the training is done; not when it is interrupted or fails."""

    def close(self) -> None:
        """However the training ended."""
