"""When a run saves, and that a signal makes it save and stop."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from eqprop.run import checkpoint
from eqprop.run.errors import RunError
from eqprop.run.signals import Stop
from eqprop.training import snapshot
from eqprop.training.callback import Callback
from eqprop.training.divergence_guard import DivergenceGuard
from eqprop.training.session import Row, Session

log = logging.getLogger(__name__)


@dataclass
class Checkpoints(Callback):
    """Saves into ``folder``: ``last.pt``, ``last.previous.pt``, ``best.pt`` and ``epoch-N.pt``."""

    folder: Path
    meta: dict[str, Any]  # goes into each file as well: configuration, versions …
    stop: Stop
    rows: Callable[[], int]  # flushes the metrics to the disk, and counts their bytes
    guard: DivergenceGuard  # checks that all is finite before it is saved
    every: int = 1  # epochs between two saves; the last epoch is always saved
    every_steps: int | None = None  # steps between two saves inside an epoch
    keep: int = 0  # how many epoch-N.pt stay
    share: float = 1.0  # of the time since the last save, which a save may take

    def __post_init__(self) -> None:
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

    def on_recorded(self, session: Session, row: Row, improved: bool) -> None:
        done = session.at.epoch - 1
        if improved:
            self._hold_best(session)
        final = done >= session.epochs or session.stopped is not None
        if self.stop.requested is not None and not final:
            self._save_and_stop(session)
        due = done % self.every == 0 and self._affordable()
        if (final or due) and self.save(session, final) and self.keep:
            self._keep_epoch(done)

    def save(self, session: Session, final: bool = False) -> bool:
        """Save now, and return whether that was possible: a full disk costs a warning.

        Raises RunError if a number is not finite, the folder is gone, or a final save fails.
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
        if self._best is not None:  # first: last.pt must never know of a best that is not there
            found, weights = self._best
            checkpoint.write(self.folder / "best.pt", {**meta, **found}, {"model": weights})
            self._best = None
        checkpoint.write(self.folder / "last.pt", meta, state)
        if not self._proven:  # an optimizer of somebody else's may hold what no load accepts
            checkpoint.read(self.folder / "last.pt").tensors()
            self._proven = True

    def _hold_best(self, session: Session) -> None:
        """Copy the weights, which costs little: they are written with the next save."""
        copies = {name: t.detach().clone() for name, t in session.network.state_dict().items()}
        self._best = {**snapshot.place(session), "kind": "weights"}, copies

    def _affordable(self) -> bool:
        return self.share >= 1 or self._cost <= self.share * (time.perf_counter() - self._saved_at)

    def _save_and_stop(self, session: Session) -> None:
        try:
            self.save(session, final=True)
        except RunError as error:
            log.error("%s", error)
        self.stop.raise_if_requested()

    def _keep_epoch(self, epoch: int) -> None:
        last, path = self.folder / "last.pt", self.folder / f"epoch-{epoch}.pt"
        with suppress(OSError, ValueError):  # ValueError: a file that somebody else named so
            path.unlink(missing_ok=True)
            try:
                os.link(last, path)
            except OSError:  # a file system without links
                shutil.copyfile(last, path)
            for old in sorted(self.folder.glob("epoch-*.pt"), key=_epoch)[: -self.keep]:
                old.unlink()

    def _fail(self, error: OSError, final: bool) -> None:
        if not self.folder.is_dir():
            raise RunError(f"cannot save: the run's folder is gone ({self.folder})") from error
        line = f"cannot save to {self.folder}: {error.strerror or error}"
        if final:
            how = "what was saved before is still there: free the disk and resume"
            raise RunError(f"{line}; {how}") from error
        if not self._warned:
            self._warned = True
            log.warning("%s; the run goes on, what was saved before is still there", line)


def _epoch(path: Path) -> int:
    return int(path.stem.partition("-")[2])
