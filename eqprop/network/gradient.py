"""The gradient of the energy by the parameters, summed over the phases of an estimator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eqprop.network.network import Network
from eqprop.network.state import State


class WeightGradient:
    """Σ_k c_k ∂⟨E⟩/∂θ(u_k) over states u_k, ⟨⟩ the batch mean, in ``parameters()`` order.

    ``begin``, then ``add`` at each state, then ``finish``. The input is the same in all of them:
    of the edges that begin in a clamped layer the signals are summed, and multiplied once.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        parameters = list(network.parameters())
        self.out = [torch.zeros_like(p) for p in parameters]
        place = {id(p): i for i, p in enumerate(parameters)}
        self._of_edge = {
            edge: [self.out[place.pop(id(p))] for p in edge.weights()]
            for into in network.into
            for edge in into
        }
        self._of_bias = [
            None if edge is None else self.out[place.pop(id(edge.bias))] for edge in network.biases
        ]
        self._others = [(parameters[i], self.out[i]) for i in place.values()]
        self._begun = False

    def fits(self, network: Network) -> bool:
        """Whether it sums gradients of this network as it is now."""
        now = list(network.parameters())
        return (
            self.network is network
            and len(now) == len(self.out)
            and all(
                g.shape == p.shape and g.dtype == p.dtype and g.device == p.device
                for g, p in zip(self.out, now, strict=True)
            )
        )

    def begin(self) -> None:
        """Start from zero."""
        self._begun = False

    @torch.no_grad()
    def add(self, state: State, c: float) -> None:
        """Add c · ∂⟨E⟩/∂θ at the state as it is."""
        network, first = self.network, not self._begun
        self._begun = True
        if network.by_autograd:
            self._add_by_autograd(state, c, first, list(network.parameters()), self.out)
            return
        if self._others:
            parameters, buffers = zip(*self._others, strict=True)
            self._add_by_autograd(state, c, first, parameters, buffers)
        scale = self._scale(state) * c
        for layer in range(1, network.n_layers):
            signal, total = network.signal(state, layer), state.contrast[layer]
            torch.mul(signal, c, out=total) if first else total.add_(signal, alpha=c)
            for edge in network.into[layer]:
                if not state.clamped[edge.source]:
                    rate = network.rate(state, edge.source)
                    memory = state.memory[edge]
                    edge.gradient(rate, signal, scale, self._of_edge[edge], not first, memory)

    @torch.no_grad()
    def finish(self, state: State) -> list[Tensor]:
        """The sum; the next ``begin`` writes into the same tensors."""
        network, scale = self.network, self._scale(state)
        if not self._begun:  # nothing has been added
            for gradient in self.out:
                gradient.zero_()
        if network.by_autograd or not self._begun:
            return self.out
        for layer in range(1, network.n_layers):
            total, bias = state.contrast[layer], self._of_bias[layer]
            for edge in network.into[layer]:
                if state.clamped[edge.source]:
                    rate = network.rate(state, edge.source)
                    memory = state.memory[edge]
                    edge.gradient(rate, total, scale, self._of_edge[edge], False, memory)
            if bias is not None:
                rest = [dim for dim in range(total.dim()) if dim != 1]
                torch.sum(total, rest, out=bias).mul_(scale)
        return self.out

    def _scale(self, state: State) -> float:
        return -self.network.local.scale / state.batch_size

    def _add_by_autograd(
        self,
        state: State,
        c: float,
        first: bool,
        parameters: Sequence[Tensor],
        buffers: Sequence[Tensor],
    ) -> None:
        with torch.enable_grad():
            loss = self.network.energy([layer.detach() for layer in state.u]).mean()
            grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        for buffer, grad in zip(buffers, grads, strict=True):
            if first:
                buffer.zero_()
            if grad is not None:
                buffer.add_(grad, alpha=c)
