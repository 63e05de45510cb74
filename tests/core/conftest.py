"""Fixtures that make networks, their reference and targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pairs import make_model, one_hot, reference_of
from reference import PHI, Reference
from torch import Tensor


@pytest.fixture
def pair() -> Callable[..., tuple[Any, Reference]]:
    """make(kind, sizes, batch, phi, cost, beta, dtype) -> (model, its reference)."""

    def make(
        kind: str, sizes: list[int], batch: int, phi: Any = "tanh", **kwargs: Any
    ) -> tuple[Any, Reference]:
        model = make_model(kind, sizes, batch, phi, **kwargs)
        function = PHI[phi] if isinstance(phi, str) else phi
        phis = [PHI["identity"]] + [function] * (len(sizes) - 1)
        return model, reference_of(model, kind, phis, kwargs.get("cost", "squared_error"))

    return make


@pytest.fixture
def state() -> Callable[[Any], list[Tensor]]:
    """A detached float64 copy of a model's layers."""
    return lambda model: [model.u[i].detach().double().clone() for i in range(model.n_layers)]


@pytest.fixture
def targets() -> Callable[..., Tensor]:
    """make(batch, n, dtype) -> random one-hot rows."""
    return one_hot
