"""One training step: as it is written, or captured once as a CUDA graph and replayed.

A replay repeats operations on the same memory, and nothing that happens in Python: what a step
reads must lie in tensors that never move, and it may ask the device for nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

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

WARM_UP = 3  # steps that are taken as written before one is captured: torch's own advice


class Batch(NamedTuple):
    """Inputs ``x`` (batch, *shape), classes ``y`` (batch,); ``measure`` has the metrics filled."""

    x: Tensor
    y: Tensor
    measure: bool = False


class Stepped(NamedTuple):
    """A step's estimate, and of its free phase: how many samples were right, the sum of C."""

    estimate: Estimate
    correct: Tensor  # a scalar, int64
    cost: Tensor  # a scalar, float64


class PlainStep:
    """One training step: clamp, phases, contrast, optimizer; every operation is launched anew."""

    def __call__(self, session: Session, callbacks: Sequence[Callback], batch: Batch) -> Stepped:
        """Take the step. The result lies in memory that the next step may write into."""
        x, y, measure = batch
        state, network, clip = session.state(len(x)), session.network, session.clip_norm
        with record_function("eqprop.clamp"):
            state.clamp(0, x)
            target = one_hot(y, session.data.n_classes, x.dtype)

        def update(gradients: list[Tensor]) -> None:
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.grad = gradient if clip is None else gradient.clone()
            if clip is not None:  # copies: what is measured and guarded is the gradient itself
                torch.nn.utils.clip_grad_norm_(_trained(session), clip)
            session.optimizer.step()

        with record_function("eqprop.estimate"):
            estimated, noise = session.estimator.estimate, session.noise
            if noise is not None:
                estimated = partial(noise.estimate, session.estimator)
            parts = network, state, session.solver, session.cost, target
            estimate = estimated(*parts, update=update, measure=measure)
        for callback in callbacks:
            callback.on_gradient(session, estimate)
        with record_function("eqprop.update"):
            if not estimate.applied:
                update(estimate.gradients)
        correct = (estimate.output.argmax(1) == y).sum()
        with torch.no_grad():
            cost = session.cost.cost(estimate.output, target).sum(dtype=torch.float64)
        return Stepped(estimate, correct, cost)


class CudaGraphs:
    """What captures a step: ``torch.cuda.CUDAGraph``, on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm_up(self, step: Callable[[], Stepped]) -> Stepped:
        """Take the step as written, where it will be captured."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = step()
        current.wait_stream(self._stream)
        return result

    def capture(
        self, step: Callable[[], Stepped], generators: Sequence[torch.Generator]
    ) -> tuple[Callable[[], None], Stepped]:
        """Record the step without taking it, or raise RuntimeError where that is not possible.

        Returns what replays it, and the memory in which each replay leaves its result. Each of
        the ``generators`` goes on by as much as the step, written out, would make it.
        """
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        # other threads (trackers, pinning) may use the device meanwhile
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            result = step()
        return graph.replay, result


class CapturedStep(PlainStep):
    """Replays batches of the usual size; log lines and smaller batches take the plain path.

    The first steps are taken as written: every buffer comes into being. A setting that changes has
    the step captured anew. What cannot be captured is a warning, or the end where ``strict``.
    """

    def __init__(self, backend: CudaGraphs, strict: bool = True) -> None:
        self.backend = backend
        self.strict = strict
        self._memory: Batch | None = None  # what the captured step reads
        self._settings: object = None
        self._warmed = 0
        self._captured: tuple[Callable[[], None], Stepped] | None = None
        self._given_up = False

    def __call__(self, session: Session, callbacks: Sequence[Callback], batch: Batch) -> Stepped:
        take = partial(super().__call__, session, callbacks)
        if batch.measure or len(batch.x) != session.data.batch_size or not self._may(session):
            return take(batch)
        if self._warmed < WARM_UP:
            self._warmed += 1
            return self.backend.warm_up(partial(take, batch))
        self._memory = self._memory or Batch(batch.x.clone(), batch.y.clone())
        self._memory.x.copy_(batch.x)
        self._memory.y.copy_(batch.y)
        try:
            step = partial(take, self._memory)
            if self._captured is None:
                log.info("step %d is captured as a CUDA graph, to be replayed", session.step)
            self._captured = self._captured or self.backend.capture(step, _generators(session))
        except RuntimeError as error:
            self._give_up(brief(str(error)))
            return take(batch)
        replay, result = self._captured
        replay()
        return result

    def _may(self, session: Session) -> bool:
        """Whether a step can be captured, under settings that may have changed."""
        settings = _settings(session)
        if settings != self._settings and not self._given_up:
            self._settings, self._warmed, self._captured = settings, 0, None
            parts = (session.estimator, session.solver, session.noise)
            obstacles = (part.capture_obstacle() for part in parts if part is not None)
            if (obstacle := next(filter(None, obstacles), None)) is not None:
                self._give_up(obstacle)
        return not self._given_up

    def _give_up(self, obstacle: str) -> None:
        if self.strict:
            line = f"device.cuda_graph=true: the training step cannot be captured ({obstacle})"
            raise RunError(f"{line}; choose device.cuda_graph=false")
        log.warning("the training step is not captured as a CUDA graph (%s)", obstacle)
        self._given_up = True


def _generators(session: Session) -> list[torch.Generator]:
    found = [generator for _, generator in private_generators(session)]
    kind = session.device.type
    return [g for g in found if isinstance(g, torch.Generator) and g.device.type == kind]


def _trained(session: Session) -> list[Tensor]:
    """The parameters that the optimizer moves."""
    moved = {id(p) for group in session.optimizer.param_groups for p in group["params"]}
    return [p for p in session.network.parameters() if id(p) in moved]


def _settings(session: Session) -> object:
    """The numbers that a captured step has baked in; private ones are a part's own notes."""
    plain = (bool, int, float, str, tuple)
    parts = (session.solver, session.estimator, session.noise)
    held = [vars(part) for part in parts if part is not None]
    holders = [*session.optimizer.param_groups, *held]
    return [
        {k: v for k, v in held.items() if isinstance(v, plain) and not k.startswith("_")}
        for held in holders
    ]
