"""The gradient of the energy by the parameters, summed over the phases of an estimator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized

from eqprop.network.cost import per_sample
from eqprop.network.edge import Edge, by_parameters
from eqprop.network.network import Network
from eqprop.network.state import State


class WeightGradient:
    """Σ_k c_k ∂⟨E⟩/∂θ(u_k) over states u_k, ⟨⟩ the batch mean, in ``parameters()`` order.

    Where states are complex it is the real part of the sum.
    ``begin``, then ``add`` at each state, then ``finish``. The input is the same in all of them:
    of the edges that begin in a clamped layer the signals are summed, and multiplied once.

    Feedback weights that learn are given the same contrast, of the same two layers, as the weights
    beside them (Kolen & Pollack 1994): weight decay then makes the two equal in time.
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
        self._learned = [  # feedback weights, and the weights that they are updated with
            (self.out[place.pop(id(p))], own)
            for edge, of_edge in self._of_edge.items()
            if edge.feedback is not None
            for p, own in zip(edge.feedback.weights(), of_edge, strict=False)
        ]
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
    def add(self, state: State, c: float | Tensor) -> None:
        """Add c · ∂⟨E⟩/∂θ at the state as it is: a number, or a tensor, one number or (batch,)."""
        with state.reading():
            self._add(state, c)

    def _add(self, state: State, c: float | Tensor) -> None:
        network, first = self.network, not self._begun
        self._begun = True
        if network.by_autograd:
            self._add_by_autograd(state, c, first, list(network.parameters()), self.out)
            return
        if self._others:
            parameters, buffers = zip(*self._others, strict=True)
            self._add_by_autograd(state, c, first, parameters, buffers)
        for layer in range(1, network.n_layers):
            signal, total = network.signal(state, layer), state.contrast[layer]
            factor = 1.0
            if isinstance(c, Tensor):  # the signal itself is of the state: it stays
                signal = torch.mul(signal, per_sample(c, signal), out=state.work[layer])
            else:
                factor = c
            torch.mul(signal, factor, out=total) if first else total.add_(signal, alpha=factor)
            scale = self._scale(state) * factor
            for edge in network.into[layer]:
                if not _summed(state, edge):
                    rate = network.rate(state, edge.source)
                    memory = state.memory[edge]
                    _of(edge)(rate, signal, scale, self._of_edge[edge], not first, memory)

    @torch.no_grad()
    def finish(self, state: State) -> list[Tensor]:
        """The sum; the next ``begin`` writes into the same tensors."""
        network = self.network
        if not self._begun:  # nothing has been added
            for gradient in self.out:
                gradient.zero_()
        if network.by_autograd or not self._begun:
            return self.out
        rates = {e: network.rate(state, e.source) for e in network.edges if _summed(state, e)}
        return self.of_signals(state, state.contrast, rates, self._scale(state))

    @torch.no_grad()
    def of_signals(
        self, state: State, signals: Sequence[Tensor], rates: Mapping[Edge, Tensor], scale: float
    ) -> list[Tensor]:
        """``scale · Σ_batch σ_target · ∂K(r)/∂θ``, for signals σ by layer and rates r by edge.

        It is written for the edges in ``rates``, and for every bias.
        """
        for layer in range(1, self.network.n_layers):
            signal, bias = signals[layer], self._of_bias[layer]
            for edge in self.network.into[layer]:
                if edge in rates:
                    memory = state.memory[edge]
                    _of(edge)(rates[edge], signal, scale, self._of_edge[edge], False, memory)
            if bias is not None:
                rest = [dim for dim in range(signal.dim()) if dim != 1]
                torch.sum(signal.real, rest, out=bias).mul_(scale)
        for back, forth in self._learned:
            back.copy_(forth)
        return self.out

    def _scale(self, state: State) -> float:
        return -self.network.local.scale / state.batch_size

    def _add_by_autograd(
        self,
        state: State,
        c: float | Tensor,
        first: bool,
        parameters: Sequence[Tensor],
        buffers: Sequence[Tensor],
    ) -> None:
        for buffer in buffers if first else ():
            buffer.zero_()
        with torch.enable_grad():
            loss = (self.network.energy([layer.detach() for layer in state.u]) * c).mean()
        for buffer, grad in zip(buffers, by_parameters([loss], parameters), strict=True):
            if grad is not None:
                buffer.add_(grad)


def _of(edge: Edge) -> Callable[..., None]:
    """The edge's gradient by its parameters, which are not its weights where torch makes these."""
    return partial(Edge.gradient, edge) if is_parametrized(edge) else edge.gradient


def _summed(state: State, edge: Edge) -> bool:
    """Whether the edge is the same function of the same rate in all phases.

    A disturbance may change its weights between two, and with them the arg-max of a pool.
    """
    return state.clamped[edge.source] and (edge.linear or state.noise is None)
