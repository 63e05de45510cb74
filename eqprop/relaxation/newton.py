"""How far a Newton step moves a layer: the gradient over the curvature, downhill and bounded."""

from __future__ import annotations

import torch
from torch import Tensor

from eqprop.network import Network, Nudge, State
from eqprop.network.local import Site


def newton_move(
    network: Network, state: State, layer: int, site: Site, nudge: Nudge | None, clip: float
) -> Tensor:
    """clip(∂F/∂u / max(|∂²F/∂u²|, c), ± clip) of one layer, in a buffer."""
    grad, curvature = network.newton_terms(state, layer, site, nudge)
    move = torch.div(grad, _steep_(curvature, network.terms[layer].own_curvature), out=grad)
    return _clip_(move, clip)


def _steep_(curvature: Tensor, least: float) -> Tensor:
    """|curvature|, and no less than ``least``; of a complex one the sign alone is taken away."""
    if curvature.is_complex():
        small = curvature.abs() < least
        sign = torch.copysign(torch.ones_like(curvature.real), curvature.real)
        return curvature.mul_(sign).masked_fill_(small, least)
    return curvature.abs_().clamp_min_(least)


def _clip_(move: Tensor, most: float) -> Tensor:
    """Shorten a move to at most that size, in its direction."""
    if move.is_complex():
        return move.mul_(move.abs().reciprocal_().mul_(most).clamp_max_(1.0))
    return move.clamp_(-most, most)
