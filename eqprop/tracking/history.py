"""The rows of a run in W&B's history, whose steps only go up and whose rows cannot be mended."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from eqprop.tracking import media

Row = Mapping[str, Any]


class History:
    """Brings rows to ``run``, W&B's own object, each at the optimizer step it is of.

    Rows of one optimizer step are merged. One whose step goes back, which W&B would drop, joins the
    present row instead.
    """

    def __init__(self, run: Any) -> None:
        self._run = run
        self._defined: set[str] = set()
        self._step = -1  # the optimizer step of the present row
        self._place = -1  # the history's step that this row has; ahead where one came in between
        self._had = -1  # what is of this optimizer step, or of one before, has come already
        self._extremes: dict[str, dict[str, float]] | None = None

    def resume(self, rows: Iterable[Row], *, online: bool) -> None:
        """Go on where an earlier process has left off.

        Args:
            rows: the run's own record up to where the training goes on.
            online: whether the run is at a server; rows that have not arrived there are sent.
        """
        rows = list(rows)
        self._extremes = {}
        for row in rows:
            self._note(row)
        if online:
            reached = self._reached()
            # More rows of the last step that is there are news if the training goes on from there,
            # else it has gone back and repeats what the server has.
            gone_back = not rows or rows[-1]["step"] < reached
            self._had = self._step = reached if gone_back else reached - 1
            for row in rows:
                if row["step"] > reached:
                    self.log({name: math.nan if x is None else x for name, x in row.items()})

    def log(self, row: Row) -> None:
        """Record numbers by name."""
        step = int(row.get("step", self._step))
        if self.has(step):
            return
        for name in [name for name in row if name not in self._defined]:
            media.define_metric(self._run, name)
            self._defined.add(name)
        self._note(row)
        self._run.log(dict(row), step=self._placed(step))

    def show(self, name: str, thing: Any, step: int) -> None:
        """Record W&B's object of a chart or a table."""
        self._run.log({name: thing}, step=self._placed(step))

    def has(self, step: int) -> bool:
        """Whether an earlier process has brought all that is of this optimizer step."""
        return 0 <= step <= self._had

    def close(self) -> dict[str, Any]:
        """Bring the last row; returns what W&B's summary of the metrics does not know."""
        # a row is pending until the next one, and would overwrite the summary when it is committed
        self._run.log({}, step=max(self._place, 0), commit=True)
        return dict(self._extremes or {})

    def _reached(self) -> int:
        """The optimizer step of the last row at the server, -1 if it has none."""
        if not self._run.resumed:
            return -1
        self._place = int(self._run.starting_step) - 1
        return int(self._run.summary.get("step", self._place))

    def _placed(self, step: int) -> int:
        if step > self._step:
            self._step, self._place = step, max(step, self._place + 1)
        return max(self._place, 0)

    def _note(self, row: Row) -> None:
        """Follow the extremes of a resumed run: W&B forgets those of before."""
        if self._extremes is None:
            return
        for name, value in row.items():
            if name not in media.AXES and value is not None and math.isfinite(value):
                seen = self._extremes.get(name, {"min": value, "max": value})
                low, high = min(seen["min"], value), max(seen["max"], value)
                self._extremes[name] = {"min": low, "max": high, "last": value}
