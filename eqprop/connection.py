"""What joins two layers: the product forward, the product back, and the weight's gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dense(nn.Linear):
    """Every unit with every unit: ``weight`` (post, pre) and ``bias`` (post), as torch.nn.Linear.

    The in-place products below are what a relaxation calls; each writes into the caller's buffer.
    """

    def forward_(self, r: Tensor, out: Tensor) -> Tensor:
        """Write ``r Wᵀ + b`` (batch, post) into ``out``, from ``r`` (batch, pre)."""
        return torch.addmm(self.bias, r, self.weight.t(), out=out)

    def transpose_(self, e: Tensor, out: Tensor, bias: Tensor | None = None) -> Tensor:
        """Write ``e W`` (batch, pre), plus ``bias`` of that shape, into ``out``."""
        if bias is None:
            return torch.mm(e, self.weight, out=out)
        return torch.addmm(bias, e, self.weight, out=out)

    def gradient_(
        self, post: Tensor, pre: Tensor, scale: float, weight: Tensor, bias: Tensor
    ) -> None:
        """Write ``scale · Σ_batch post preᵀ`` into ``weight``, ``scale · Σ post`` into ``bias``."""
        torch.addmm(weight, post.t(), pre, beta=0.0, alpha=scale, out=weight)
        torch.sum(post, 0, out=bias).mul_(scale)

    def add_gradient_(
        self, post: Tensor, pre: Tensor, scale: float, weight: Tensor, bias: Tensor
    ) -> None:
        """Add ``scale · Σ_batch post preᵀ`` to ``weight``, ``scale · Σ post`` to ``bias``."""
        torch.addmm(weight, post.t(), pre, alpha=scale, out=weight)
        bias.add_(post.sum(0), alpha=scale)
