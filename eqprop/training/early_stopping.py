"""Ends a training that no longer improves: ``callbacks=early_stopping``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge
from typing_extensions import Doc

from eqprop.run.errors import RunError
from eqprop.run.text import hint, show
from eqprop.training.callback import Callback
from eqprop.training.session import Row, Session

_TEST = ("accuracy/test", "cost/test", "energy/test")


class EarlyStopping(Callback):
    """Ends the run, as done, after ``patience`` evaluated epochs without an improvement."""

    def __init__(
        self,
        monitor: Annotated[
            str | None, Doc("a number of an epoch's row (null: the accuracy that selects the best)")
        ] = None,
        patience: Annotated[int, Ge(1), Doc("evaluated epochs without an improvement")] = 5,
        mode: Annotated[
            Literal["auto", "max", "min"],
            Doc("what is better (auto: min of costs, energies, times)"),
        ] = "auto",
        min_delta: Annotated[float, Ge(0), Doc("a smaller change is no improvement")] = 0.0,
    ) -> None:
        self.monitor, self.patience, self.mode, self.min_delta = monitor, patience, mode, min_delta
        self._best: float | None = None
        self._epoch = self._waited = 0

    @staticmethod
    def check_config(config: Any) -> None:
        """Raise ValueError where it would watch a test set that is not the one that selects."""
        for name, part in config.callbacks.items():
            monitor = getattr(part, "monitor", None)
            mine = part.constructor is EarlyStopping
            if mine and monitor in _TEST and getattr(config.dataset, "validation", None):
                how = "with dataset.validation > 0 the test set does not end a run; choose"
                better = monitor.replace("test", "validation").replace("energy", "cost")
                raise ValueError(f"callbacks.{name}.monitor={show(monitor)}: {how} {better}")

    def on_epoch(self, session: Session, row: Row, improved: bool) -> None:
        name = self.monitor or session.objective_name
        if name not in row:
            if session.objective_name not in row:  # an epoch that is not evaluated
                return
            known = f"epoch {row['epoch']} has no such number{hint(name, list(row))}"
            raise RunError(f"early stopping: monitor={show(name)}: {known}")
        value = float(row[name])
        if self._best is None or self._gain(name, value) > self.min_delta:
            self._best, self._epoch, self._waited = value, int(row["epoch"]), 0
            return
        self._waited += 1
        if self._waited >= self.patience:
            best = f"its best, {self._best:.4g}, is of epoch {self._epoch}"
            long = f"{self._waited} evaluated epoch{'s' * (self._waited > 1)}"
            session.stop(f"{name} has not improved for {long} ({best})")

    def _gain(self, name: str, value: float) -> float:
        assert self._best is not None
        falls = self.mode == "min"
        if self.mode == "auto":
            falls = name.startswith(("cost/", "energy/", "time/"))
        return self._best - value if falls else value - self._best

    def state_dict(self) -> dict[str, Any]:
        """What it has seen."""
        return {"best": self._best, "epoch": self._epoch, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._best, self._epoch, self._waited = state["best"], state["epoch"], state["waited"]
