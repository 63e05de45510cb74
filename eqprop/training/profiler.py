"""A trace of some training steps by torch's profiler: ``profile.json`` in the run's folder."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from eqprop.training.callback import Callback
from eqprop.training.session import Session

log = logging.getLogger(__name__)

NAME = "profile.json"
SKIPPED = 5
"""Steps before the trace begins: they allocate buffers and fill caches, as none after them does."""


class Profiler(Callback):
    """Traces the first steps after ``SKIPPED`` others, or fewer in a short run.

    It changes no number of the training. A trace that cannot be written costs a warning.

    Args:
        n_steps: how many steps are traced.
        folder: where ``profile.json`` goes.
    """

    def __init__(self, n_steps: int, folder: Path) -> None:
        self._left = n_steps
        self._skip = SKIPPED
        self._path = folder / NAME
        self._profiler: profile | None = None

    def on_start(self, session: Session) -> None:
        self._skip = max(1, min(SKIPPED, _steps_to_come(session) - self._left))

    def on_step(self, session: Session, samples: int) -> None:
        if self._profiler is not None:
            self._left -= 1
            if self._left == 0:
                self.close()
        elif self._left > 0:
            self._skip -= 1
            if self._skip <= 0:
                self._begin(session)

    def close(self) -> None:
        """Write what was traced so far, if anything was."""
        profiler, self._profiler, self._left = self._profiler, None, 0
        if profiler is None:
            return
        profiler.stop()
        part = self._path.with_suffix(".part")
        try:
            profiler.export_chrome_trace(str(part))
            os.replace(part, self._path)
        except (OSError, RuntimeError) as error:
            with suppress(OSError):
                part.unlink()
            log.warning("cannot write %s: %s; the run goes on", self._path, error)
            return
        log.info("profile    %s (open it in https://ui.perfetto.dev)", self._path)

    def _begin(self, session: Session) -> None:
        activities = [ProfilerActivity.CPU]
        if session.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it writes to standard error
        self._profiler = profile(activities=activities, record_shapes=True, acc_events=True)
        self._profiler.start()


def _steps_to_come(session: Session) -> int:
    return session.steps_an_epoch * (session.epochs + 1 - session.at.epoch) - session.at.batches
