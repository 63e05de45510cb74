"""The rows of a run in W&B's history, whose steps only go up and whose rows cannot be changed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from eqprop.tracking.base import Row

AXES = ("step", "epoch")
OF_EPOCHS = ("accuracy/", "time/", "throughput/", "energy/test")
"""How the names begin of metrics that come once an epoch."""
SECTION = "zoom"
"""Where charts and tables are shown: behind the metrics, whose sections are sorted by name.

A terminal dashboard draws the number of a table's rows, and whatever numbers it has, as metrics.
"""


class History:
    """Sends rows to ``run``, W&B's own object, each at its optimizer step.

    Rows of one optimizer step are merged. One whose step goes back, which W&B would drop, joins the
    present row instead.
    """

    def __init__(self, run: Any) -> None:
        self._run = run
        self._defined: set[str] = set()
        self._step = -1  # optimizer step of the present row
        self._place = -1  # its step in the history; ahead where a row came in between
        self._sent = -1  # an earlier process has sent all rows up to this optimizer step

    def resume(self, rows: Iterable[Row]) -> None:
        """Continue an online run that an earlier process began.

        ``rows`` is the run's own record up to where the training continues; those that have not
        arrived at the server are sent.
        """
        rows, reached = list(rows), -1
        if self._run.resumed:
            self._place = int(self._run.starting_step) - 1
            reached = int(self._run.summary.get("step", self._place))
        # More rows of the last step at the server are news if the training continues from there,
        # else it has gone back and repeats what the server has.
        gone_back = not rows or rows[-1]["step"] < reached
        self._sent = self._step = reached if gone_back else reached - 1
        for row in rows:
            if row["step"] > reached:
                self.log({name: math.nan if x is None else x for name, x in row.items()})

    def log(self, row: Row) -> None:
        """Send one row of numbers by name."""
        step = int(row.get("step", self._step))
        if self.has(step):
            return
        for name in row.keys() - self._defined:
            define_metric(self._run, name)
            self._defined.add(name)
        self._run.log(dict(row), step=self._placed(step))

    def show(self, name: str, thing: Any, step: int) -> None:
        """Send W&B's object of a chart or a table."""
        self._run.log({f"{SECTION}/{name}": thing}, step=self._placed(step))

    def has(self, step: int) -> bool:
        """Whether an earlier process has sent everything of this optimizer step."""
        return 0 <= step <= self._sent

    def close(self) -> None:
        """Send the last row, which is pending and would overwrite the summary later."""
        self._run.log({}, step=max(self._place, 0), commit=True)

    def _placed(self, step: int) -> int:
        if step > self._step:
            self._step, self._place = step, max(step, self._place + 1)
        return max(self._place, 0)


def define_metric(run: Any, name: str) -> None:
    """Give a metric its x axis, and its lowest, highest and last value in the summary.

    By its whole name: W&B's patterns do not match a name with a dot in it, as parameters have.
    """
    if name in AXES:
        run.define_metric(name)
        return
    axis = "epoch" if name.startswith(OF_EPOCHS) else "step"
    run.define_metric(name.replace(".", "\\."), step_metric=axis, summary="min,max,last")


def extremes(rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    """The same summary over a whole run: W&B knows only the last part of a resumed one."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in AXES and value is not None:
                values.setdefault(name, []).append(value)
    return {name: {"min": min(v), "max": max(v), "last": v[-1]} for name, v in values.items()}
