"""The same network under plain backprop, as a competent user would write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eqprop.network.activation import as_activation

Loss = Callable[[Tensor, Tensor], Tensor]


class Network(nn.Module):
    """Linear layers with φ between them; the output is linear. ``sizes``: the input's first."""

    def __init__(self, sizes: Sequence[int], activation: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(pre, post) for pre, post in pairwise(sizes))
        self.phi = as_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (batch, classes) of inputs (batch, size)."""
        *hidden, last = self.layers
        for layer in hidden:
            x = self.phi(layer(x))
        return last(x)


def squared_error(output: Tensor, y: Tensor) -> Tensor:
    """½ ‖output − one-hot y‖², the batch mean."""
    target = F.one_hot(y, output.shape[1]).to(output.dtype)
    return 0.5 * (output - target).square().sum(1).mean()


LOSSES: dict[str, Loss] = {"CrossEntropy": F.cross_entropy, "SquaredError": squared_error}
"""By the name of the cost's class."""


def fused_adam(network: nn.Module, lr: float = 1e-3) -> torch.optim.Optimizer:
    """Adam in one pass over memory."""
    return torch.optim.Adam(network.parameters(), lr=lr, fused=True)


def train_step(
    network: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor
) -> Tensor:
    """One step of gradient descent; returns the outputs, for the accuracy."""
    optimizer.zero_grad(set_to_none=True)
    output: Tensor = network(x)
    loss(output, y).backward()
    optimizer.step()
    return output.detach()


def train_epoch(
    network: nn.Module,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    data: tuple[Tensor, Tensor],
    batch_size: int,
) -> float:
    """One pass over ``data`` (x, y) in a random order; returns the accuracy while training."""
    x, y = data
    correct = torch.zeros((), dtype=torch.int64, device=x.device)
    for batch in torch.randperm(len(x), device=x.device).split(batch_size):
        labels = y[batch]
        output = train_step(network, loss, optimizer, x[batch], labels)
        correct += (output.argmax(1) == labels).sum()
    return float(correct) / len(x)


@torch.no_grad()
def accuracy(network: nn.Module, data: tuple[Tensor, Tensor], batch_size: int = 1000) -> float:
    """The share of ``data`` (x, y) that is classified correctly."""
    x, y = data
    correct = torch.zeros((), dtype=torch.int64, device=x.device)
    for inputs, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
        correct += (network(inputs).argmax(1) == labels).sum()
    return float(correct) / len(x)
