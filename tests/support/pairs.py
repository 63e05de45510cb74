"""Models with a random state beside the reference implementation with the same weights."""

from __future__ import annotations

from typing import Any

import torch
from reference import Reference
from torch import Tensor

import eqprop


def one_hot(batch: int, n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.nn.functional.one_hot(torch.randint(n, (batch,)), n).to(dtype)


def reference_of(model: Any, kind: str, phi: list[Any], cost: str) -> Reference:
    """The reference with a float64 copy of the model's weights as they are now."""
    W = [connection.weight.detach().double().clone() for connection in model.W]
    b = [connection.bias.detach().double().clone() for connection in model.W]
    return Reference(kind, W, b, phi, cost)


def make_model(
    kind: str,
    sizes: list[int],
    batch: int,
    phi: Any = "tanh",
    cost: str = "squared_error",
    beta: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> Any:
    """A model with a random state, layer 0 clamped; `phi` a name or a function for all layers."""
    energy = {"gaussian": eqprop.ConditionalGaussian, "hopfield": eqprop.RestrictedHopfield}[kind]
    c_energy = {"squared_error": eqprop.SquaredError, "cross_entropy": eqprop.CrossEntropy}[cost]
    model = energy(sizes, c_energy(beta), batch, ["identity"] + [phi] * (len(sizes) - 1))
    model = model.to(dtype)
    for i, n in enumerate(sizes):
        model.u[i] = torch.randn(batch, n, dtype=dtype)
    model.clamp_layer(0, torch.randn(batch, sizes[0], dtype=dtype))
    return model
