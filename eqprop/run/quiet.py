"""A console that costs no run. Apart from the other streams, because rich takes time to load."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console

from eqprop.run.streams import let_go


class QuietConsole(Console):
    """A rich console whose reader may go away."""

    def on_broken_pipe(self) -> None:
        """Write to nowhere from now on, instead of ending the program."""
        let_go(sys.stdout)

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print, or not: a full disk behind the stream is no reason to fail a run."""
        try:
            super().print(*args, **kwargs)
        except (OSError, ValueError):
            let_go(sys.stdout)
