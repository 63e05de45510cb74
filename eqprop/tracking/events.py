"""TensorBoard's event files, written row by row. Needs the extra ``tensorboard``.

Written here and not by ``SummaryWriter``, whose thread keeps rows back for two minutes, which a
killed run would lose, and prints a traceback where the disk is full.
"""

from __future__ import annotations

import itertools
import math
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy.typing as npt
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary

protos: Any = summary  # its functions have no types
_NUMBER = itertools.count()
_STATUS = {
    "done": api_pb2.STATUS_SUCCESS,
    "failed": api_pb2.STATUS_FAILURE,
    "interrupted": api_pb2.STATUS_UNKNOWN,
}


class EventFile:
    """One event file in ``folder``, which is made if it is missing.

    ``afresh`` tells a TensorBoard that is running to forget what it has read of the folder.
    """

    def __init__(self, folder: Path, afresh: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_NUMBER):04d}"
        self._file = open(folder / f"events.out.tfevents.{name}", "xb")  # noqa: SIM115
        self._writer = RecordWriter(self._file)
        self._write(Event(file_version="brain.Event:2"))
        if afresh:
            self._write(Event(session_log=SessionLog(status=SessionLog.START)))

    def scalars(
        self, numbers: Mapping[str, float | int], step: int, at: float | None = None
    ) -> None:
        """Numbers by their tags; what is not finite is left out, as it cannot be drawn."""
        values = [
            Summary.Value(tag=tag, simple_value=float(number))
            for tag, number in numbers.items()
            if number is not None and math.isfinite(number)
        ]
        self._write(Event(step=step, summary=Summary(value=values)), at)

    def text(self, tag: str, markdown: str, step: int, at: float | None = None) -> None:
        """A text."""
        self._write(Event(step=step, summary=protos.text(tag, markdown)), at)

    def image(self, tag: str, pixels: npt.NDArray[Any], step: int) -> None:
        """A picture, uint8, (height, width) or (height, width, 3)."""
        order = "HW" if pixels.ndim == 2 else "HWC"
        self._write(Event(step=step, summary=protos.image(tag, pixels, dataformats=order)))

    def hyperparameters(
        self, chosen: Mapping[str, Any], results: Mapping[str, Any], state: str
    ) -> None:
        """The line of the hparams page: what was chosen, and the tags of what came out."""
        plain = {k: v if type(v) in (int, float) else str(v) for k, v in chosen.items()}
        *opening, end = protos.hparams(plain, dict(results))
        (value,) = end.value
        data = value.metadata.plugin_data
        data.content = _ended(data.content, state)
        for part in (*opening, end):
            self._write(Event(summary=part))

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def __enter__(self) -> EventFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, event: Any, at: float | None = None) -> None:
        event.wall_time = time.time() if at is None else at
        self._writer.write(event.SerializeToString())
        self._writer.flush()


def wall_times(folder: Path) -> dict[int, float]:
    """When the numbers of each step were written into the event files in ``folder``."""
    found: dict[int, float] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for record in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(record)
            if any(value.HasField("simple_value") for value in event.summary.value):
                found.setdefault(event.step, event.wall_time)
    return found


def _ended(content: bytes, state: str) -> bytes:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    data = HParamsPluginData.FromString(content)
    data.session_end_info.status = _STATUS[state]
    return bytes(data.SerializeToString())
