"""How far a state is from equilibrium: the size of the energy's gradient there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def layer_residuals(gradient: Sequence[Tensor | None]) -> Tensor:
    """``mean_batch ‖∂F/∂u[l]‖₂`` of each free layer of a state gradient, (free layers,)."""
    norms = [
        torch.linalg.vector_norm(g.flatten(1), dim=1).mean() for g in gradient if g is not None
    ]
    return torch.stack(norms) if norms else torch.zeros(0)


def sample_residuals(gradient: Sequence[Tensor | None]) -> Tensor:
    """``Σ_l ‖∂F/∂u[l]‖₂`` of each sample of a state gradient with a free layer, (batch,)."""
    found = [torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradient if g is not None]
    return torch.stack(found).sum(0)


def residual(gradient: Sequence[Tensor | None]) -> Tensor:
    """``Σ_l mean_batch ‖∂F/∂u[l]‖₂`` of a state gradient, a scalar tensor."""
    return layer_residuals(gradient).sum()
