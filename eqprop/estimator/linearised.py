"""What the layers of a network follow, to first order at a state: products with its derivatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eqprop.estimator.estimator import parameter_gradient
from eqprop.network import Network, State


class Linearised:
    """The equilibrium condition f(u, θ) = ∂E/∂u = 0 to first order at a state.

    f is the negative of the field that the layers follow: with feedback weights of their own, it is
    the gradient of no energy, and ∂f/∂u is not symmetric. Vectors are flat, (batch, units of the
    free layers), and 0 at units that are held.
    """

    def __init__(self, network: Network, state: State, held: Sequence[Tensor]) -> None:
        self.parameters = list(network.parameters())
        self.batch_size = state.batch_size
        with torch.enable_grad():
            u = [u.clone().requires_grad_(i in state.free) for i, u in enumerate(state.u)]
            self.layers = [u[i] for i in state.free]
            self.forces = [-v for v in network.field(u, state.free)]
        self.held = torch.cat([where.flatten(1) for where in held], 1)
        self._dual: tuple[list[Tensor], Sequence[Tensor]] | None = None

    def flat(self, layers: Sequence[Tensor]) -> Tensor:
        """One tensor a free layer as one vector."""
        return torch.cat([layer.flatten(1) for layer in layers], 1).masked_fill_(self.held, 0.0)

    def product(self, v: Tensor) -> Tensor:
        """(∂f/∂u) v, of the units that are not held."""
        return self.flat(self._pushed(range(len(self.layers)), v))

    def transposed_product(self, v: Tensor) -> Tensor:
        """(∂f/∂u)ᵀ v, of the units that are not held."""
        return self.flat(self._pulled(self.layers, v))

    def antisymmetric_product(self, v: Tensor, place: int) -> Tensor:
        """(∂f/∂u − (∂f/∂u)ᵀ) v of one layer (batch, *shape), the free ones counted from 0."""
        pulled = self._pulled([self.layers[place]], v)[0]
        held = self._parts(self.held)[place]
        return (self._pushed([place], v)[0] - pulled).masked_fill_(held, 0.0)

    def parameter_gradient(self, v: Tensor) -> list[Tensor]:
        """⟨(∂f/∂θ)ᵀ v⟩, ⟨⟩ the batch mean: one tensor a parameter."""
        along = self._parts(v / self.batch_size)
        return parameter_gradient(self.forces, self.parameters, along, retain_graph=True)

    def _parts(self, v: Tensor) -> list[Tensor]:
        parts = torch.split(v, [layer[0].numel() for layer in self.layers], 1)
        return [part.view_as(layer) for part, layer in zip(parts, self.layers, strict=True)]

    def _pulled(self, by: Sequence[Tensor], v: Tensor) -> tuple[Tensor, ...]:
        return _derivative(self.forces, by, self._parts(v))

    def _pushed(self, places: Sequence[int], v: Tensor) -> tuple[Tensor, ...]:
        """(∂f/∂u) v of the layers at ``places``: the derivative of (∂f/∂u)ᵀ w by w."""
        if self._dual is None:
            with torch.enable_grad():
                w = [torch.zeros_like(layer).requires_grad_() for layer in self.layers]
                self._dual = w, _derivative(self.forces, self.layers, w, create_graph=True)
        w, pulled = self._dual
        return _derivative(pulled, [w[place] for place in places], self._parts(v))


def _derivative(
    of: Sequence[Tensor], by: Sequence[Tensor], v: Sequence[Tensor], **how: bool
) -> tuple[Tensor, ...]:
    """Σ v · ∂of/∂by; what is constant has no derivative."""
    pairs = [(x, along) for x, along in zip(of, v, strict=True) if x.requires_grad]
    of, v = zip(*pairs, strict=True)
    return torch.autograd.grad(of, by, v, retain_graph=True, materialize_grads=True, **how)
