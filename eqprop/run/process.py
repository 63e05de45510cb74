"""What a run changes in the process around it, and how that is put back."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from eqprop.run.errors import ConfigError

_ONE = threading.Lock()


@contextmanager
def alone() -> Iterator[None]:
    """Refuse a second run beside one of the same process: both would move its streams and logs.

    Raises ConfigError.
    """
    if not _ONE.acquire(blocking=False):
        raise ConfigError("another run is at work in this process; start a process for each")
    try:
        yield
    finally:
        _ONE.release()


@contextmanager
def put_back() -> Iterator[None]:
    """At its end environment, arguments, path, streams, log handlers and signals are as before."""
    variables, arguments, path = dict(os.environ), list(sys.argv), list(sys.path)
    streams = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    main = threading.current_thread() is threading.main_thread()
    signals = {n: signal.getsignal(n) for n in signal.valid_signals()} if main else {}
    try:
        yield
    finally:
        for number, handler in signals.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        for added in [handler for handler in root.handlers if handler not in handlers]:
            added.close()
        root.handlers[:], root.level = handlers, level
        for name, stream in streams.items():
            _flush(getattr(sys, name))
            setattr(sys, name, stream)
        sys.argv[:], sys.path[:] = arguments, path
        for name in [*os.environ]:
            if name not in variables:
                del os.environ[name]
        os.environ.update(variables)


def look_here_last() -> None:
    """Look for modules in the program's folder, then in that of the command, after all others.

    Classes of one's own lie there, but a file ``statistics.py`` there is not Python's.
    """
    here = os.getcwd()
    own = os.path.dirname(os.path.abspath(sys.argv[0]))
    last = [folder for folder in (own, here) if folder in map(os.path.abspath, sys.path)]
    others = [entry for entry in sys.path if os.path.abspath(entry) not in (own, here)]
    sys.path[:] = dict.fromkeys([*others, *last, here])


def _flush(stream: Any) -> None:
    with suppress(OSError, ValueError, AttributeError):
        stream.flush()
