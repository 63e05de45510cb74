"""A table of a network's layers, logged before the first step: ``trainer.summary=true``."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from rich.console import Console
from rich.table import Table

from eqprop.network import Conv, Dense, Edge, Identity, Network, State
from eqprop.training.callback import Callback
from eqprop.training.session import Session
from eqprop.training.snapshot import random_states_kept

log = logging.getLogger(__name__)

REPETITIONS = 3  # of which the fastest counts
_UNKNOWN = "-"
_HEADS = ("layer", "edge", "shape", "parameters", "multiply-adds", "time")


class Summary(Callback):
    """Logs the table; changes nothing of the training."""

    def on_start(self, session: Session) -> None:
        for line in lines(session):
            log.info("%s", line)


def lines(session: Session) -> list[str]:
    """The table, with a row for each edge and the total, and above it what its columns mean."""
    batch = session.data.batch_size
    with random_states_kept(session):
        rows = list(rows_of(session.network, batch, session.device))
    table = Table(*_HEADS, box=None, pad_edge=False, header_style="")
    for column in table.columns[3:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console = Console(width=10**6, markup=False, highlight=False, emoji=False)
    with console.capture() as shown:
        console.print(table)
    return [
        "layers: multiply-adds of one drive of one sample; time: share of one drive, pull and",
        f"gradient of each edge, measured on a batch of {batch}, best of {REPETITIONS}",
        *map(str.rstrip, shown.get().splitlines()),
    ]


def rows_of(network: Network, batch: int, device: torch.device) -> Iterator[tuple[str, ...]]:
    """The cells of the table: the input, each edge in the order of the layers, the total."""
    state, edges = network.new_state(batch), [e for into in network.into for e in into]
    # an energy given as a whole goes another way through them
    timed = not network.by_autograd
    times = [seconds(edge, state, device) if timed else math.nan for edge in edges]
    counts = [multiply_adds(edge) for edge in edges]
    yield "0", "input", _sides(network.shapes[0]), "", "", ""
    for edge, count, taken in zip(edges, counts, times, strict=True):
        parameters = sum(p.numel() for p in edge.parameters())
        share = f"{100 * taken / sum(times):.1f} %" if timed else _UNKNOWN
        shape = _sides(edge.out_shape)
        yield str(edge.target), words(edge), shape, f"{parameters:,}", _count(count), share
    parameters = sum(p.numel() for p in network.parameters())
    whole = None if None in counts else sum(count or 0 for count in counts)
    total = f"{1e3 * sum(times):.3g} ms" if timed else _UNKNOWN
    yield "total", "", "", f"{parameters:,}", _count(whole), total


def words(edge: Edge) -> str:
    """What an edge is, for a person: its class and, of a convolution, its sizes."""
    text = type(edge).__name__
    if type(edge) is Conv:
        text += f" {edge.weight.shape[2]}x{edge.weight.shape[3]}"
        text += f" stride {edge.stride[0]}" if edge.stride[0] > 1 else ""
        if edge.pool is not None:
            text += f" + {type(edge.pool).__name__.lower()} pool {edge.pool.size}x{edge.pool.size}"
    text += "" if edge.source == edge.target - 1 else f" from layer {edge.source}"
    return text if edge.feedback is None else f"{text}, own feedback"


def multiply_adds(edge: Edge) -> int | None:
    """Of one drive of one sample, without pools; None for an edge whose sums are not known."""
    if type(edge) is Dense:
        return edge.weight.numel()
    if type(edge) is Conv:
        window = 1 if edge.pool is None else edge.pool.size**2
        return edge.weight.numel() * math.prod(edge.out_shape[1:]) * window
    return 0 if type(edge) is Identity else None


@torch.no_grad()
def seconds(edge: Edge, state: State, device: torch.device) -> float:
    """What one drive, one pull (not down to the input) and one gradient take together."""
    source, target, memory = state.sites[edge.source], state.sites[edge.target], state.memory[edge]
    signal, gradients = state.signal[edge.target], [torch.empty_like(p) for p in edge.weights()]

    def work() -> None:
        edge.drive(source.r, target.d, None, memory)
        if source.p is not None and edge.source > 0:
            edge.back.pull(source.r, signal, source.p, None, memory)
        edge.gradient(source.r, signal, 1.0, gradients, False, memory)

    work()  # allocates and chooses what the next ones use
    return min(_timed(work, device) for _ in range(REPETITIONS))


def _timed(work: Callable[[], None], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _sides(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _count(count: int | None) -> str:
    return _UNKNOWN if count is None else f"{count:,}"
