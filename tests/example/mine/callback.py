"""How far the weights have moved: a number that each epoch's row gets."""

from __future__ import annotations

import math
from typing import Annotated, Any

from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from eqprop.training.callback import Callback
from eqprop.training.session import Row, Session


class Drift(Callback):
    """Records ``drift``: the distance of all weights from the first ones.

    What it remembers is saved with the run: resumed, it still measures from the first weights.
    """

    def __init__(
        self, enough: Annotated[float | None, Ge(0), Doc("a drift that ends the run")] = None
    ) -> None:
        self.enough = math.inf if enough is None else enough
        self.first: list[Tensor] = []

    def on_start(self, session: Session) -> None:
        if not self.first:  # not resumed
            self.first = [p.detach().clone() for p in session.network.parameters()]

    def on_epoch(self, session: Session, row: Row, improved: bool) -> None:
        pairs = zip(session.network.parameters(), self.first, strict=True)
        moved = [float((now.detach() - then.to(now.device)).norm()) for now, then in pairs]
        row["drift"] = math.hypot(*moved)
        if row["drift"] > self.enough:
            session.stop(f"the weights have drifted by {row['drift']:.3g}")

    def state_dict(self) -> dict[str, Any]:
        return {"first": self.first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.first = state["first"]
