"""Standard output that costs no run: when its reader goes (``… | head -1``), or has few letters."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO, cast


class LastingOutput:
    """A text stream that goes nowhere once nobody reads it; else it is the stream that it wraps."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write to the stream, or to nowhere."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._let_go()
            return len(text)

    def flush(self) -> None:
        """Flush to the stream, or to nowhere."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._let_go()

    def _let_go(self) -> None:
        # what is still buffered goes there too, when the interpreter ends
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def prepare_output() -> None:
    """Make ``sys.stdout``, where there is one, outlive its reader and write any text somehow."""
    if sys.stdout is None:
        return
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stdout = cast("TextIO", LastingOutput(sys.stdout))
