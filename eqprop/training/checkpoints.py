"""When a run saves, and that a signal makes it save and stop."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eqprop.run import checkpoint
from eqprop.run.errors import RunError
from eqprop.run.signals import Stop
from eqprop.training import snapshot
from eqprop.training.callback import Callback
from eqprop.training.divergence_guard import DivergenceGuard
from eqprop.training.session import Row, Session

log = logging.getLogger(__name__)


class Checkpoints(Callback):
    """Saves into ``folder``: ``last.pt``, ``last.previous.pt``, ``best.pt`` and ``epoch-N.pt``.

    Args:
        folder: where; it exists.
        meta: what belongs into each file besides the training's own: configuration, versions …
        stop: whether a signal has come.
        rows: flushes the metrics to the disk and returns how many bytes of them there are.
        guard: checks that all is finite before it is saved.
        every: epochs between two saves; the last epoch is always saved.
        every_steps: steps between two saves inside an epoch, None for none.
        keep: how many ``epoch-N.pt`` stay.
        share: saves that would take more than this share of the time since the last are left out.
    """

    def __init__(
        self,
        folder: Path,
        meta: dict[str, Any],
        stop: Stop,
        rows: Callable[[], int],
        guard: DivergenceGuard,
        every: int = 1,
        every_steps: int | None = None,
        keep: int = 0,
        share: float = 1.0,
    ) -> None:
        self.folder = folder
        self.meta = meta
        self.stop = stop
        self.rows = rows
        self.guard = guard
        self.every = every
        self.every_steps = every_steps
        self.keep = keep
        self.share = share
        self._best: tuple[dict[str, Any], dict[str, Tensor]] | None = None
        self._cost = 0.0  # seconds that the last save took
        self._saved_at = time.perf_counter()
        self._proven = False  # that what is written can be loaded again
        self._warned = False

    def on_step(self, session: Session, samples: int) -> None:
        if self.stop.requested is not None:
            self._save_and_stop(session)
        if self.every_steps and session.step % self.every_steps == 0 and self._affordable():
            self.save(session)

    def on_epoch(self, session: Session, row: Row, improved: bool) -> None:
        done = session.at.epoch - 1
        if improved:
            self._hold_best(session)
        final = done >= session.epochs
        if self.stop.requested is not None and not final:
            self._save_and_stop(session)
        due = done % self.every == 0 and self._affordable()
        if (final or due) and self.save(session, final):
            self._keep_epoch(done)

    def save(self, session: Session, final: bool = False) -> bool:
        """Save now, and return whether that was possible.

        A disk that does not take it costs a warning and the checkpoint before stays, but the end
        of a run cannot do without.

        Raises:
            RunError: if a number is not finite, the folder is gone, or a final save fails.
        """
        start = time.perf_counter()
        self.guard.check(session)
        try:
            self._write(session)
        except OSError as error:
            self._fail(error, final)
            return False
        finally:
            self._saved_at = time.perf_counter()
            self._cost = self._saved_at - start
        return True

    def _write(self, session: Session) -> None:
        meta, state = snapshot.capture(session)
        meta |= {**self.meta, "metrics_bytes": self.rows()}
        if not self._proven:
            _prove(state)
            self._proven = True
        if self._best is not None:  # first: last.pt must never know of a best that is not there
            found, weights = self._best
            checkpoint.write(self.folder / "best.pt", {**meta, **found}, {"model": weights})
            self._best = None
        checkpoint.write(self.folder / "last.pt", meta, state)

    def _hold_best(self, session: Session) -> None:
        """Copy the weights, which costs little: they are written with the next save."""
        found = {"kind": "weights", "step": session.step, "epoch": session.at.epoch}
        found |= {"batches": 0, "last": dict(session.last), "best": dict(session.best)}
        copies = {name: t.detach().clone() for name, t in session.network.state_dict().items()}
        self._best = found, copies

    def _affordable(self) -> bool:
        return self.share >= 1 or self._cost <= self.share * (time.perf_counter() - self._saved_at)

    def _save_and_stop(self, session: Session) -> None:
        try:
            self.save(session, final=True)
        except RunError as error:
            log.error("%s", error)
        self.stop.raise_if_requested()

    def _keep_epoch(self, epoch: int) -> None:
        if self.keep == 0:
            return
        path = self.folder / f"epoch-{epoch}.pt"
        with suppress(OSError):
            path.unlink(missing_ok=True)
            try:
                os.link(self.folder / "last.pt", path)
            except OSError:  # a file system without links
                shutil.copyfile(self.folder / "last.pt", path)
            kept = sorted(self.folder.glob("epoch-*.pt"), key=_epoch_of)
            for old in kept[: -self.keep]:
                old.unlink()

    def _fail(self, error: OSError, final: bool) -> None:
        reason = error.strerror or str(error)
        if not self.folder.is_dir():
            raise RunError(f"the run's folder is gone: cannot save to {self.folder}") from error
        if final:
            raise RunError(
                f"cannot save to {self.folder}: {reason}; what was saved before is still there: "
                "free the disk and resume"
            ) from error
        if not self._warned:
            self._warned = True
            log.warning(
                "cannot save to %s: %s; the run goes on, what was saved before is still there",
                *(self.folder, reason),
            )


def _prove(state: dict[str, Any]) -> None:
    """Refuse at the first save what no later load would accept: another's optimizer may hold it."""
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    try:
        checkpoint.Checkpoint(Path("it"), {}, buffer.getvalue()).tensors()
    except checkpoint.CheckpointError as error:
        raise RunError(
            f"cannot be saved so that it loads again: model and optimizer may hold tensors and "
            f"plain values only ({error})"
        ) from error


def _epoch_of(path: Path) -> int:
    digits = path.stem.partition("-")[2]
    return int(digits) if digits.isdigit() else 0
