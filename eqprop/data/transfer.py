"""Data that a GPU has no room for: it stays in pinned host memory and is brought in by batch."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

log = logging.getLogger(__name__)

SHARE = 0.5
"""Of the GPU's free memory, what data may take; network and states need the rest."""


class Transfer:
    """Copies from pinned host memory to a GPU, on a stream beside the one that computes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def batches(self, x: Tensor, parts: Iterable[Tensor | slice]) -> Iterator[Tensor]:
        """``x[part]`` on the device, part by part; while one is in use, the next is on its way."""
        sent: Tensor | None = None
        for part in parts:
            ready = sent if sent is None else self.receive(sent)
            sent = self.send(x, part)
            if ready is not None:
                yield ready
        if sent is not None:
            yield self.receive(sent)

    def pin(self, x: Tensor) -> Tensor:
        """``x`` in memory that a GPU reads by itself."""
        return x.pin_memory()

    def send(self, x: Tensor, part: Tensor | slice) -> Tensor:
        """Begin to copy ``x[part]``."""
        if isinstance(part, slice):
            rows = x[part]
        else:
            rows = torch.empty(len(part), *x.shape[1:], dtype=x.dtype, pin_memory=True)
            torch.index_select(x, 0, part, out=rows)
        with torch.cuda.stream(self.stream):
            return rows.to(self.device, non_blocking=True)

    def receive(self, sent: Tensor) -> Tensor:
        """What was sent, for the stream that computes: that one waits for it, the host does not."""
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self.stream)
        sent.record_stream(current)  # its memory is not given to the next batch before
        return sent


def transfer_to(device: torch.device, size: int) -> Transfer | None:
    """What brings data of ``size`` bytes to the device; None where all of it may lie there."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    if size <= SHARE * free:
        return None
    sizes = size / 1e9, free / 1e9
    log.info("the data (%.1f GB) stay in host memory: the GPU has %.1f GB free", *sizes)
    return Transfer(device)
