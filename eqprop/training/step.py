"""How a training step is taken: as it is written, or captured once and replayed.

A replay repeats the operations of the captured step on the same memory, so that the host has one
launch to do instead of hundreds. It repeats nothing that happens in Python: what a step reads must
lie in tensors that never move, and it may ask the device for nothing.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from eqprop.estimator import Estimate
from eqprop.run.errors import RunError
from eqprop.run.text import brief
from eqprop.training.snapshot import private_generators

if TYPE_CHECKING:
    from eqprop.training.loop import Training

log = logging.getLogger(__name__)

WARM_UP = 3
"""Steps of one layout that are taken as written before it is captured: torch's own advice."""


class Stepped(NamedTuple):
    """What a step leaves: its estimate, and how many of its samples were right (a scalar)."""

    estimate: Estimate
    correct: Tensor


class Step(ABC):
    """One training step on a batch: clamp, phases, contrast, optimizer."""

    @abstractmethod
    def __call__(self, training: Training, x: Tensor, y: Tensor, measure: bool) -> Stepped:
        """Take the step on ``x`` (batch, d) and classes ``y`` (batch,); ``measure`` fills metrics.

        The result lies in memory that the next step may write into.
        """


class PlainStep(Step):
    """Every operation is launched anew."""

    def __call__(self, training: Training, x: Tensor, y: Tensor, measure: bool) -> Stepped:
        estimate = training.update(x, y, measure)
        return Stepped(estimate, (estimate.output.argmax(1) == y).sum())


class Backend(ABC):
    """What can capture a step."""

    @abstractmethod
    def warm_up(self, step: Callable[[], Stepped]) -> Stepped:
        """Take the step as written, where it will be captured."""

    @abstractmethod
    def capture(
        self, step: Callable[[], Stepped], generators: Sequence[torch.Generator]
    ) -> tuple[Callable[[], None], Stepped]:
        """Record the step without taking it.

        Returns what replays it, and the memory in which each replay leaves its result. Each of
        the ``generators`` goes on by as much as the step, written out, would make it.

        Raises:
            RuntimeError: if the step does what cannot be recorded.
        """


class CapturedStep(Step):
    """Replays batches of the usual size; log lines and smaller batches take the plain path.

    Both compute the same numbers. The first steps are taken as written, to let every buffer come
    into being. Where one has moved since (an evaluation may need larger ones, a checkpoint was
    loaded), or a setting has changed, the step is captured anew.

    Args:
        backend: what captures.
        strict: whether a step that cannot be captured ends the run; else it costs a warning.
    """

    def __init__(self, backend: Backend, strict: bool = True) -> None:
        self.backend = backend
        self.strict = strict
        self.plain = PlainStep()
        self._x = self._y = torch.empty(0)
        self._layout: object = None
        self._warmed = 0
        self._captured: tuple[Callable[[], None], Stepped] | None = None
        self._given_up = False

    def __call__(self, training: Training, x: Tensor, y: Tensor, measure: bool) -> Stepped:
        if measure or self._given_up or len(x) != training.data.batch_size:
            return self.plain(training, x, y, measure)
        layout = _layout(training)
        if layout != self._layout:
            self._layout, self._warmed, self._captured = layout, 0, None
        if self._warmed < WARM_UP:
            self._warmed += 1
            return self.backend.warm_up(lambda: self.plain(training, x, y, measure))
        self._load(x, y)
        self._captured = self._captured or self._capture(training)
        if self._captured is None:
            return self.plain(training, x, y, measure)
        replay, result = self._captured
        replay()
        return result

    def _load(self, x: Tensor, y: Tensor) -> None:
        if self._x.shape != x.shape or self._x.dtype != x.dtype or self._x.device != x.device:
            self._x, self._y = torch.empty_like(x), torch.empty_like(y)
        self._x.copy_(x)
        self._y.copy_(y)

    def _capture(self, training: Training) -> tuple[Callable[[], None], Stepped] | None:
        try:
            return self.backend.capture(
                lambda: self.plain(training, self._x, self._y, False), _generators(training)
            )
        except RuntimeError as error:
            reason = brief(str(error))
            if self.strict:
                raise RunError(
                    f"device.cuda_graph=true: the training step cannot be captured ({reason}); "
                    "choose device.cuda_graph=false"
                ) from error
            log.warning("the training step is not captured as a CUDA graph (%s)", reason)
            self._given_up = True
            return None


def _generators(training: Training) -> list[torch.Generator]:
    """Those that draw on the device."""
    kind = training.data.train.x.device.type
    held = [value for _, value in private_generators(training)]
    return [g for g in held if isinstance(g, torch.Generator) and g.device.type == kind]


def _layout(training: Training) -> object:
    """Where all lies that a captured step reads or writes, and the numbers that it has baked in."""
    model, optimizer = training.model, training.optimizer
    tensors = [*model.u, *model.parameters()]
    for values in optimizer.state.values():
        tensors += [value for value in values.values() if isinstance(value, Tensor)]
    return (
        # buffers move together, when they grow; a larger capacity never becomes smaller again
        (id(model.buffers_of), model.buffers_of.capacity),
        tuple(tensor.data_ptr() for tensor in tensors),
        tuple(_numbers(group) for group in optimizer.param_groups),
        _numbers(vars(training.solver)),
        _numbers(vars(training.estimator)),
        id(model.generator),
    )


def _numbers(settings: dict[str, Any]) -> tuple[tuple[str, object], ...]:
    plain = (bool, int, float, str, tuple)
    return tuple((key, value) for key, value in settings.items() if isinstance(value, plain))
