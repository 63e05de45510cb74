"""Signals that ask a run to end: it saves at its next step boundary, then ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU)
# 75 is EX_TEMPFAIL, "try again later": for a cluster that is to queue the job again
EXIT_CODES = {**{number: 128 + number for number in _ENDING}, signal.SIGUSR2: 75}


class Stopped(KeyboardInterrupt):
    """The run was told to stop by a signal."""

    def __init__(self, number: int) -> None:
        self.exit_code = EXIT_CODES[signal.Signals(number)]
        super().__init__(f"interrupted by {signal.Signals(number).name}")


class Stop:
    """Whether the run has been told to stop. Outside of ``deferred`` a signal stops it at once."""

    def __init__(self) -> None:
        self.requested: int | None = None
        self._deferring = self._raised = False
        self._previous: dict[int, Any] = {}

    def raise_if_requested(self) -> None:
        """Call the handlers on that were there before, then raise Stopped, if a signal came.

        They are called only now: one that ends the process must not lose what has been learnt.
        """
        if self.requested is None:
            return
        self._deferring = False
        previous = self._previous.get(self.requested)
        if callable(previous) and previous is not signal.default_int_handler:
            previous(self.requested, None)
        self._raised = True
        raise Stopped(self.requested)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within it a signal only sets ``requested``; but a second SIGINT ends at once."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def _heard(self, number: int, frame: FrameType | None) -> None:
        again = self.requested is not None and number == signal.SIGINT
        if self.requested is None:
            self.requested = number
        if again:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a third one needs nobody's help
            raise KeyboardInterrupt
        if not (self._deferring or self._raised):  # said again, it does not disturb the end
            self.raise_if_requested()


@contextmanager
def listening() -> Iterator[Stop]:
    """Listen for the signals within it, where Python allows it: in the main thread.

    What was ignored before stays so, as SIGHUP by nohup; but not Ctrl-C and SIGTERM, which a shell
    has its background jobs ignore.
    """
    stop = Stop()
    if threading.current_thread() is threading.main_thread():
        always = (signal.SIGINT, signal.SIGTERM)
        heard = [n for n in EXIT_CODES if n in always or signal.getsignal(n) != signal.SIG_IGN]
        stop._previous = {n: signal.signal(n, stop._heard) for n in heard}
    try:
        yield stop
    finally:
        for number, handler in stop._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold signals back until its end, so that what is written within it is written."""
    came: list[int] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handled = [n for n in EXIT_CODES if callable(signal.getsignal(n))]
        before = {n: signal.signal(n, lambda n, _: came.append(n)) for n in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)
