"""Standard streams and a log file that may be closed, cut off or full without ending the run."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TextIO, cast

from eqprop.run.errors import UserError
from eqprop.run.home import prepare_home
from eqprop.run.paths import expanded
from eqprop.run.process import look_here_last
from eqprop.run.redact import redact


class LastingStream:
    """A standard stream that discards its output once writing has failed, as of ``… | head -1``.

    Its other attributes are those of the stream that it wraps.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write to the stream, or discard the text."""
        with self._lasting():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, or discard what is in its buffer."""
        with self._lasting():
            self._stream.flush()

    @contextmanager
    def _lasting(self) -> Iterator[None]:
        """On failure redirect the stream to the null device, what is still buffered included."""
        try:
            yield
        except (OSError, ValueError):
            with suppress(OSError, ValueError), open(os.devnull, "wb") as null:
                os.dup2(null.fileno(), self._stream.fileno())
                self._stream.flush()


class LogFile(logging.FileHandler):
    """The run's log. A full disk costs the rest of the log and one warning on the console."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Close the file and say once why the log ends here."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        logging.getLogger().removeHandler(self)
        stream: Any = self.stream
        self.stream = None
        with suppress(OSError):  # closing tries to write what is left
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


def prepare_streams() -> None:
    """Make the standard streams outlive their readers, accept any text, and exist.

    A stream that was closed is opened on the null device, or the next file that is opened would
    take its number and receive what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = _lasting(sys.stdout or os.fdopen(1, "w", closefd=False))
    sys.stderr = _lasting(sys.stderr or os.fdopen(2, "w", closefd=False))


def _lasting(stream: TextIO) -> TextIO:
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")  # a poor locale lacks some letters
    return cast("TextIO", LastingStream(stream))


def _with_home(word: str) -> str:
    """An argument whose path begins with ``~/`` or ``$NAME``, which the shell has not replaced."""
    head, equals, value = word.rpartition("=")
    return f"{head}{equals}{expanded(value, head)}" if value.startswith(("~/", "$")) else word


def exit_cleanly(main: Callable[[], object]) -> NoReturn:
    """Run a script's ``main`` and exit with the status that it returns, 0 if none.

    A mistake of the user is one line, Ctrl-C status 130. A standard stream that is closed, whose
    reader goes away (``… | head``) or that cannot encode a character is no failure.
    """
    prepare_streams()
    prepare_home()
    look_here_last()
    try:
        sys.argv[1:] = map(_with_home, sys.argv[1:])
        found = main()
        sys.exit(found if isinstance(found, int) else 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
