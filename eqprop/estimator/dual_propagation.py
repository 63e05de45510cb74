"""Dual propagation: two states a layer, one sweep up and one down."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Gt
from torch import Tensor
from typing_extensions import Doc

from eqprop.estimator.estimator import Estimate, Update, refuse_clamped, target_for
from eqprop.estimator.feed_forward import FeedForward
from eqprop.network import Cost, Network, State, WeightGradient
from eqprop.relaxation import Solver


class DualPropagation(FeedForward):
    """∂⟨C⟩/∂θ of a feed-forward pass, from two states a layer and no derivative of an activation.

    The sweep up is the feed-forward pass. The sweep down pushes the rates of each layer to either
    side of what its drive d_l gives, by the difference δ = r⁺ − r⁻ of the layers that it drives:

        p_L = −β ∂C/∂u_L,  p_l = Σ_e K_eᵀ δ_target,  r_l^± = R(d_l ± p_l / 2),

    where R(d) is the rate of a layer whose drive is d; the output layer's is its state. With the
    mean rates r̄ = (r⁺ + r⁻) / 2,

        ∂C/∂θ_e = −⟨δ_target · ∂K_e(r̄_source)/∂θ_e⟩ / β,  ∂C/∂b_l = −⟨δ_l⟩ / β.

    The bias is of order β², and zero where no φ bends between d − p/2 and d + p/2: the cost, too,
    pushes by its slope at the feed-forward output, whatever β is. Further sweeps leave the bias
    about as it is.

    Source: Høier, Staudt & Zach (2023), the output nudged alike to both sides (α = ½); there the
    variant of Høier & Zach (2024), which is stable for every α, is the same.

    Args:
        beta: nudging strength, positive.
    """

    option: ClassVar[str] = "dual_propagation"
    order = 2

    def __init__(
        self,
        beta: Annotated[
            float, Gt(0), Doc("how far the cost pushes a layer's two states apart")
        ] = 0.1,
    ) -> None:
        if not beta > 0.0:
            raise ValueError(f"estimator.beta={beta}: must be a number > 0")
        self.beta = beta
        self._sum: WeightGradient | None = None

    def estimate(
        self,
        network: Network,
        state: State,
        solver: Solver,
        cost: Cost,
        target: Tensor,
        *,
        update: Update | None = None,
        measure: bool = False,
    ) -> Estimate:
        refuse_clamped(state, self)
        target = target_for(state, target)
        if self._sum is None or not self._sum.fits(network):
            self._sum = WeightGradient(network)
        with torch.no_grad(), state.held():
            network.feed_forward(state)
            metrics = self.measured(network, state, cost, target) if measure else {}
            output = state.u[-1].clone()
            push = cost.gradient(output, target, state.gradient[-1]).mul_(-self.beta)
            means = self._sweep_down(network, state, push)
            rates = {edge: means[edge.source] for edge in network.edges}
            scale = -1.0 / (self.beta * state.batch_size)
            gradients = self._sum.of_signals(state, state.signal, rates, scale)
        return Estimate(gradients, output, {}, metrics)

    def check(self, network: Network) -> None:
        super().check(network)
        of_edges = {id(p) for edge in network.W for p in edge.parameters()}
        for name, parameter in network.named_parameters():
            if id(parameter) not in of_edges:
                raise ValueError(
                    f"estimator={self.option}: the parameter {name} belongs to no edge, and only "
                    "those of edges have a gradient here; choose estimator=backprop or ep"
                )

    def remedies(self) -> dict[str, float]:
        return {"estimator.beta": self.beta}

    def capture_obstacle(self) -> str | None:
        return (
            None if type(self).estimate is DualPropagation.estimate else super().capture_obstacle()
        )

    def _sweep_down(self, network: Network, state: State, push: Tensor) -> dict[int, Tensor]:
        """Put each layer's δ into ``state.signal``; the mean rates of the layers, by layer."""
        last, means = network.n_layers - 1, {0: network.rate(state, 0)}
        for layer in reversed(network.order):
            site, pressure = state.sites[layer], push if layer == last else None
            for edge in network.out_of[layer]:
                assert site.p is not None  # the layer drives another
                delta = state.signal[edge.target]
                edge.pull(network.rate(state, layer), delta, site.p, pressure, state.memory[edge])
                pressure = site.p
            half = state.work[layer].zero_() if pressure is None else pressure.mul_(0.5)
            up, down = (_reached(network, layer, d) for d in (site.d + half, site.d - half))
            torch.sub(up, down, out=state.signal[layer])
            means[layer] = up.add_(down).mul_(0.5)
        return means


def _reached(network: Network, layer: int, drive: Tensor) -> Tensor:
    """R(drive)."""
    u = network.local.forward(drive, network.phi[layer])
    return u if layer == network.n_layers - 1 else network.rate_phi[layer](u)
