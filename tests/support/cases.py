"""Every energy on a dense, a conv-average-pool and a conv-max-pool network, small, in float64."""

from __future__ import annotations

from functools import partial

import torch
from networks import LOCALS, graph
from torch import Tensor

from eqprop.network import Conv, Dense, Network

KINDS = sorted(LOCALS)
NETS = ("dense", "average", "max")


def network(kind: str, net: str = "dense", phi: str = "tanh", seed: int = 0) -> Network:
    """Three weighted layers, 3 linear outputs; ``net`` is dense, or the pooling of its pictures."""
    torch.default_generator.manual_seed(seed)
    if net == "dense":
        layers = [((source, partial(Dense, units=n)),) for source, n in enumerate((6, 5, 3))]
        return graph(LOCALS[kind](), phi, (4,), layers)
    conv = partial(Conv, channels=3, kernel=3, padding=1, pool=net)
    layers = [((0, conv),), ((1, conv),), ((2, partial(Dense, units=3)),)]
    return graph(LOCALS[kind](), phi, (2, 8, 8), layers)


def batch(network: Network, n: int = 4, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Inputs, and one-hot targets."""
    made = torch.Generator().manual_seed(seed)
    x = torch.randn(n, *network.shapes[0], generator=made, dtype=torch.float64)
    y = torch.randint(network.shapes[-1][0], (n,), generator=made)
    return x, torch.nn.functional.one_hot(y, network.shapes[-1][0]).double()
