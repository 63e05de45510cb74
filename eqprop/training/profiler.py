"""A trace of some training steps by torch's profiler: ``profile.json`` in the run's folder."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, schedule

from eqprop.training.callback import Callback
from eqprop.training.session import Session

log = logging.getLogger(__name__)

SKIPPED = 5  # steps, which allocate buffers and fill caches as none after them does


@dataclass
class Profiler(Callback):
    """Traces ``n_steps`` steps into ``folder``, after ``SKIPPED`` others (fewer in a short run)."""

    n_steps: int
    folder: Path
    _profiler: profile | None = None

    def on_start(self, session: Session) -> None:
        at = session.at
        to_come = session.steps_an_epoch * (session.epochs + 1 - at.epoch) - at.batches
        skipped = max(1, min(SKIPPED, to_come - self.n_steps))
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it writes to standard error
        gpu = [ProfilerActivity.CUDA] if session.device.type == "cuda" else []
        self._profiler = profile(
            activities=[ProfilerActivity.CPU, *gpu],
            schedule=schedule(wait=skipped - 1, warmup=1, active=self.n_steps, repeat=1),
            on_trace_ready=self._write,
            record_shapes=True,
            acc_events=True,
        )
        self._profiler.start()

    def on_step(self, session: Session, samples: int) -> None:
        if self._profiler is not None:
            self._profiler.step()

    def close(self) -> None:
        """Write what was traced so far, if that is not written yet."""
        if self._profiler is not None:
            self._profiler.stop()

    def _write(self, profiler: profile) -> None:
        path = self.folder / "profile.json"
        profiler.export_chrome_trace(str(path))
        log.info("profile    %s (open it in https://ui.perfetto.dev)", path)
