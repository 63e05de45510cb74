"""An energy by its local terms: closed forms, Newton and every edge come with it."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from eqprop.network import Activation, LocalEnergy


class Leaky(LocalEnergy):
    """A Hopfield energy whose units also pay for being active: ε = ½ u² − r d + price · r²."""

    def __init__(self, price: Annotated[float, Ge(0), Doc("of a unit's activity")] = 0.1) -> None:
        self.price = price

    def value(self, u: Tensor, r: Tensor, d: Tensor, phi: Activation) -> Tensor:
        return 0.5 * u.square() - r * d + self.price * r.square()
