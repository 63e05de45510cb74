"""CUDA graphs: whether the training step is captured as one, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from eqprop.config import options
from eqprop.config.rules import graph_obstacle
from eqprop.config.schema import Config
from eqprop.training.step import Backend, CapturedStep, PlainStep, Step, Stepped


def captures(config: Config, device: torch.device) -> bool:
    """Whether the training step is to be captured as a CUDA graph.

    What is not our own may do what cannot be captured, so that is only tried where asked for.
    """
    wanted, foreign = config.device.cuda_graph, (options.Foreign, options.ForeignModel)
    if wanted is False or device.type != "cuda":
        return False
    parts = (config.model, config.cost, config.dynamics, config.estimator, config.optimizer)
    ours = not any(isinstance(part, foreign) for part in parts)
    return wanted is True or (ours and graph_obstacle(config) is None)


def build_step(config: Config, device: torch.device) -> Step:
    """The captured step, where it can be; one that was asked for must succeed."""
    if not captures(config, device):
        return PlainStep()
    return CapturedStep(CudaGraphs(device), strict=config.device.cuda_graph is True)


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
