"""Standard streams and a log file that may be closed, cut off or full without ending the run."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from eqprop.run.redact import redact


class ConsoleHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Log lines on a standard stream; one that nobody reads any more is let go silently."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Write to nowhere from now on, if it was the stream that failed."""
        if isinstance(sys.exc_info()[1], (OSError, ValueError)):
            let_go(self.stream)
        else:
            super().handleError(record)


class LogFile(logging.FileHandler):
    """The run's log; a disk that is full costs one line on standard error and the log's rest."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say once why the log ends here."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        logging.getLogger().removeHandler(self)
        stream: Any = self.stream
        self.stream = None
        with suppress(OSError):  # it tries to write what is left
            stream.close()
        logging.getLogger(__name__).warning(
            "cannot write %s: %s; the log ends here, the run goes on",
            *(self.baseFilename, error.strerror or error),
        )


class RedactingFormatter(logging.Formatter):
    """Keeps secrets out of the log."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, or more with a traceback."""
        return redact(super().format(record))


def open_streams() -> None:
    """Give standard streams that were closed a place, before another file takes their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free is this one
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def flush() -> None:
    """Flush the standard streams, or let them go, so that the interpreter's end meets no error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            let_go(stream)


def let_go(stream: TextIO) -> None:
    """Let a stream lead nowhere, and what is still in its buffer with it."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
    except (OSError, ValueError):
        pass
