"""A trace of some training steps by torch's profiler: ``profile.json`` in the run's folder."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

from eqprop.training.loop import Training

log = logging.getLogger(__name__)

NAME = "profile.json"
SKIPPED = 5
"""Steps before the trace begins: they allocate buffers and fill caches, as none after them does."""


@contextmanager
def profiling(training: Training, n_steps: int | None, folder: Path) -> Iterator[None]:
    """Within it ``n_steps`` of the training are traced into ``folder``; None: none are.

    The steps are the first after ``SKIPPED`` others, or fewer in a short run. The trace names the
    parts of a step as DESIGN does, and changes none of its numbers. One that cannot be written
    costs a warning.
    """
    if n_steps is None:
        yield
        return
    trace = _Trace(training, n_steps, folder / NAME)
    advance = training.advance

    def advance_and_trace(samples: int) -> None:
        advance(samples)
        trace.after_step()

    training.advance = advance_and_trace
    try:
        yield
    finally:
        training.advance = advance
        trace.close()


class _Trace:
    def __init__(self, training: Training, n_steps: int, path: Path) -> None:
        self._training = training
        self._left = n_steps
        self._skip = max(1, min(SKIPPED, _steps_to_come(training) - n_steps))
        self._path = path
        self._profiler: profile | None = None
        self._unnamed: list[tuple[Any, str]] = []

    def after_step(self) -> None:
        """Begin when enough steps were skipped, end when enough were traced."""
        if self._profiler is not None:
            self._left -= 1
            if self._left == 0:
                self.close()
        elif self._left > 0:
            self._skip -= 1
            if self._skip <= 0:
                self._begin()

    def close(self) -> None:
        """Write what was traced so far, if anything was."""
        profiler, self._profiler, self._left = self._profiler, None, 0
        if profiler is None:
            return
        profiler.stop()
        for owner, name in self._unnamed:
            delattr(owner, name)
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

    def _begin(self) -> None:
        training = self._training
        for owner, name in (
            (training, "update"),
            (training.model, "clamp_layer"),
            (training.solver, "free_phase"),
            (training.solver, "relax"),
            (training.model, "contrast_"),
            (training.health, "check"),
        ):
            self._name(owner, name)
        activities = [ProfilerActivity.CPU]
        if training.data.train.x.is_cuda:
            activities.append(ProfilerActivity.CUDA)
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it writes to standard error
        self._profiler = profile(activities=activities, record_shapes=True, acc_events=True)
        self._profiler.start()

    def _name(self, owner: Any, name: str) -> None:
        if name in vars(owner):  # somebody has put something there already
            return
        setattr(owner, name, _named(getattr(owner, name), f"eqprop.{name.strip('_')}"))
        self._unnamed.append((owner, name))


def _steps_to_come(training: Training) -> int:
    steps = math.ceil(len(training.data.train) / training.data.batch_size)
    return steps * (training.epochs + 1 - training.at.epoch) - training.at.batches


def _named(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    @wraps(method)
    def ranged(*args: Any, **kwargs: Any) -> Any:
        with record_function(name):
            return method(*args, **kwargs)

    return ranged
