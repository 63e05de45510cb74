"""What joins two layers: the product forward, the product back, and the weight's gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

Op = Callable[[], object]
"""An operation with its tensors bound; calling it writes into one of them."""


class Dense(nn.Linear):
    """Every unit with every unit: ``weight`` (post, pre) and ``bias`` (post), as torch.nn.Linear.

    A relaxation replays the same products on buffers that never move, so they are given as
    operations with their tensors bound: replaying one costs no look-up.
    """

    def forward_op(self, r: Tensor, out: Tensor) -> Op:
        """The product ``r Wᵀ + b`` (batch, post) into ``out``, from ``r`` (batch, pre)."""
        return partial(torch.addmm, self.bias, r, self.weight.t(), out=out)

    def transpose_op(self, e: Tensor, out: Tensor, bias: Tensor | None = None) -> Op:
        """The product ``e W`` (batch, pre), plus ``bias`` of that shape, into ``out``."""
        if bias is None:
            return partial(torch.mm, e, self.weight, out=out)
        return partial(torch.addmm, bias, e, self.weight, out=out)

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
