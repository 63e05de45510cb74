"""Where a free phase starts that no feed-forward pass takes the place of."""

from __future__ import annotations

import math

import torch

from eqprop.network import Network, State
from eqprop.relaxation.settings import KEPT, Init


def put_first_state(network: Network, state: State, init: Init, leave_ends: bool) -> None:
    """Put the free layers where ``init`` says, within the domain of their energy.

    With ``leave_ends`` no unit of a smooth φ starts at an end of its range.
    """
    if init not in KEPT:
        state.reset(init)
    elif not state.carries:
        state.reset("zeros")
    for layer in state.free:
        if not network.rate_phi[layer].leaves_zero:  # the next number does
            u = state.u[layer]
            u.masked_fill_(u == 0, torch.finfo(u.dtype).tiny)
            state.moved(layer)
        phi, u = network.phi[layer], state.u[layer]
        low, high = network.local.domain(phi)
        if math.isfinite(low) or math.isfinite(high):
            u.clamp_(low, high)
            if leave_ends and not phi.pieces:
                u.copy_(torch.where((u <= low) | (u >= high), phi(torch.zeros_like(u)), u))
