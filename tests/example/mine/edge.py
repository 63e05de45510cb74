"""An edge by its product: autograd gives the adjoint and the gradient of its weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from eqprop.network import Edge


class LowRank(Edge):
    """K(r) = A B r, with ``rank`` rows in B."""

    def __init__(
        self,
        in_shape: Sequence[int],
        units: Annotated[int, Ge(1), Doc("of the layer")],
        rank: Annotated[int, Ge(1), Doc("of the weight matrix")] = 8,
    ) -> None:
        super().__init__(in_shape, (units,))
        inputs = math.prod(in_shape)
        self.down = nn.Parameter(torch.randn(rank, inputs) / math.sqrt(inputs))
        self.up = nn.Parameter(torch.randn(units, rank) / math.sqrt(rank))
        self.bias = nn.Parameter(torch.zeros(units))

    def forward(self, r: Tensor) -> Tensor:
        return r.flatten(1) @ self.down.T @ self.up.T
