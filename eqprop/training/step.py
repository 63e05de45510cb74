"""One training step: as it is written, or captured once as a CUDA graph and replayed.

A replay repeats the operations of the captured step on the same memory, so that the host has one
launch to do instead of hundreds. It repeats nothing that happens in Python: what a step reads must
lie in tensors that never move, and it may ask the device for nothing.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.profiler import record_function

from eqprop.data import one_hot
from eqprop.estimator import Estimate
from eqprop.run.errors import RunError
from eqprop.run.text import brief
from eqprop.training.callback import Callback
from eqprop.training.session import Session
from eqprop.training.snapshot import private_generators

log = logging.getLogger(__name__)

WARM_UP = 3
"""Steps that are taken as written before one is captured: torch's own advice."""


class Stepped(NamedTuple):
    """What a step leaves: its estimate, and how many of its samples were right (a scalar)."""

    estimate: Estimate
    correct: Tensor


class Step(ABC):
    """One training step on a batch: clamp, phases, contrast, optimizer."""

    @abstractmethod
    def __call__(
        self,
        session: Session,
        callbacks: Sequence[Callback],
        x: Tensor,
        y: Tensor,
        measure: bool,
    ) -> Stepped:
        """Take the step on ``x`` (batch, d) and classes ``y`` (batch,); ``measure`` fills metrics.

        The result lies in memory that the next step may write into.
        """


class PlainStep(Step):
    """Every operation is launched anew."""

    def __call__(
        self,
        session: Session,
        callbacks: Sequence[Callback],
        x: Tensor,
        y: Tensor,
        measure: bool,
    ) -> Stepped:
        state, network = session.state(len(x)), session.network
        with record_function("eqprop.clamp"):
            state.clamp(0, x)
            target = one_hot(y, session.data.n_classes, x.dtype)

        def update(gradients: list[Tensor]) -> None:
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.grad = gradient
            session.optimizer.step()

        with record_function("eqprop.estimate"):
            estimate = session.estimator.estimate(
                network,
                state,
                session.solver,
                session.cost,
                target,
                update=update,
                measure=measure,
            )
        for callback in callbacks:
            callback.on_gradient(session, estimate)
        with record_function("eqprop.update"):
            if not estimate.applied:
                update(estimate.gradients)
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


class CudaGraphs(Backend):
    """``torch.cuda.CUDAGraph``, on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm_up(self, step: Callable[[], Stepped]) -> Stepped:
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = step()
        current.wait_stream(self._stream)
        return result

    def capture(
        self, step: Callable[[], Stepped], generators: Sequence[torch.Generator]
    ) -> tuple[Callable[[], None], Stepped]:
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        # other threads (trackers, pinning) may use the device meanwhile
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            result = step()
        return graph.replay, result


class CapturedStep(Step):
    """Replays batches of the usual size; log lines and smaller batches take the plain path.

    Both compute the same numbers. The first steps are taken as written, to let every buffer come
    into being; a setting that changes, a learning rate say, has the step captured anew.

    Args:
        backend: what captures.
        strict: whether a step that cannot be captured ends the run; else it costs a warning.
    """

    def __init__(self, backend: Backend, strict: bool = True) -> None:
        self.backend = backend
        self.strict = strict
        self.plain = PlainStep()
        self._x = self._y = torch.empty(0)
        self._settings: object = None
        self._warmed = 0
        self._captured: tuple[Callable[[], None], Stepped] | None = None
        self._given_up = False

    def __call__(
        self,
        session: Session,
        callbacks: Sequence[Callback],
        x: Tensor,
        y: Tensor,
        measure: bool,
    ) -> Stepped:
        if measure or self._given_up or len(x) != session.data.batch_size:
            return self.plain(session, callbacks, x, y, measure)
        settings = _settings(session)
        if settings != self._settings:
            self._settings, self._warmed, self._captured = settings, 0, None
            obstacle = session.estimator.capture_obstacle() or session.solver.capture_obstacle()
            if obstacle is not None:
                self._give_up(obstacle)
                return self.plain(session, callbacks, x, y, measure)
        if self._warmed < WARM_UP:
            self._warmed += 1
            return self.backend.warm_up(lambda: self.plain(session, callbacks, x, y, measure))
        self._load(x, y)
        self._captured = self._captured or self._capture(session, callbacks)
        if self._captured is None:
            return self.plain(session, callbacks, x, y, measure)
        replay, result = self._captured
        replay()
        return result

    def _load(self, x: Tensor, y: Tensor) -> None:
        if self._x.shape != x.shape or self._x.dtype != x.dtype or self._x.device != x.device:
            self._x, self._y = torch.empty_like(x), torch.empty_like(y)
        self._x.copy_(x)
        self._y.copy_(y)

    def _capture(
        self, session: Session, callbacks: Sequence[Callback]
    ) -> tuple[Callable[[], None], Stepped] | None:
        generators = [
            generator
            for _, generator in private_generators(session)
            if isinstance(generator, torch.Generator)
            and generator.device.type == session.device.type
        ]
        try:
            return self.backend.capture(
                lambda: self.plain(session, callbacks, self._x, self._y, False), generators
            )
        except RuntimeError as error:
            self._give_up(brief(str(error)))
            return None

    def _give_up(self, obstacle: str) -> None:
        if self.strict:
            raise RunError(
                f"device.cuda_graph=true: the training step cannot be captured ({obstacle}); "
                "choose device.cuda_graph=false"
            )
        log.warning("the training step is not captured as a CUDA graph (%s)", obstacle)
        self._given_up = True


def _settings(session: Session) -> object:
    """The numbers that a captured step has baked in."""
    plain = (bool, int, float, str, tuple)

    def numbers(settings: dict[str, Any]) -> tuple[tuple[str, object], ...]:
        return tuple((key, value) for key, value in settings.items() if isinstance(value, plain))

    groups = tuple(numbers(group) for group in session.optimizer.param_groups)
    return groups, numbers(vars(session.solver)), numbers(vars(session.estimator))
