"""The mathematics of equilibrium propagation spelled out, slow and plain, for the tests.

Nothing here imports eqprop: energies are sums as one writes them on paper, autograd does every
derivative, and nothing is reused between two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Phi = Callable[[Tensor], Tensor]


def hard_sigmoid(u: Tensor) -> Tensor:
    """clamp(u, 0, 1) with slope 1 on the closed interval [0, 1].

    Not torch.clamp, whose slope at 0 and 1 differs between torch's versions (0 in 2.14).
    """
    return torch.where((u >= 0) & (u <= 1), u, (u > 1).to(u.dtype))


PHI: dict[str, Phi] = {
    "identity": lambda u: u,
    "sigmoid": torch.sigmoid,
    "shifted_sigmoid": lambda u: torch.sigmoid(4.0 * (u - 0.5)),
    "hard_sigmoid": hard_sigmoid,
    "half_hard_sigmoid": lambda u: hard_sigmoid(u / 2.0),
    "tanh": torch.tanh,
    "relu": torch.relu,
    "relu6": lambda u: torch.where((u >= 0) & (u <= 6), u, 6.0 * (u > 6).to(u.dtype)),
    "leaky_relu": lambda u: F.leaky_relu(u, 0.05),
    "softplus": F.softplus,
}
SMOOTH = ("identity", "sigmoid", "tanh", "softplus")


def gaussian(u: list[Tensor], W: list[Tensor], b: list[Tensor], phi: list[Phi]) -> Tensor:
    """E = Σ_{l≥1} ‖u[l] − W[l-1] φ(u[l-1]) − b[l-1]‖², per sample."""
    E = torch.zeros(len(u[0]), dtype=u[0].dtype)
    for i in range(1, len(u)):
        e = u[i] - phi[i - 1](u[i - 1]) @ W[i - 1].T - b[i - 1]
        E = E + (e * e).sum(1)
    return E


def hopfield(u: list[Tensor], W: list[Tensor], b: list[Tensor], phi: list[Phi]) -> Tensor:
    """E = ½ Σ_{l≥0} ‖u[l]‖² − Σ_{l≥1} φ(u[l])ᵀ (W[l-1] φ(u[l-1]) + b[l-1]), per sample."""
    E = torch.zeros(len(u[0]), dtype=u[0].dtype)
    for i in range(len(u)):
        E = E + 0.5 * (u[i] * u[i]).sum(1)
    for i in range(1, len(u)):
        drive = phi[i - 1](u[i - 1]) @ W[i - 1].T + b[i - 1]
        E = E - (phi[i](u[i]) * drive).sum(1)
    return E


def squared_error(u_last: Tensor, y: Tensor) -> Tensor:
    """½ ‖u − y‖², per sample."""
    return 0.5 * ((u_last - y) ** 2).sum(1)


def cross_entropy(u_last: Tensor, y: Tensor) -> Tensor:
    """−log softmax(u)_y with a one-hot y, per sample."""
    return -(y * torch.log_softmax(u_last, 1)).sum(1)


ENERGIES = {"gaussian": gaussian, "hopfield": hopfield}
COSTS = {"squared_error": squared_error, "cross_entropy": cross_entropy}


def derivatives(phi: Phi, u: Tensor) -> tuple[Tensor, Tensor]:
    """φ'(u) and φ''(u) of an elementwise φ, by autograd twice."""
    u = u.detach().clone().requires_grad_()
    (first,) = torch.autograd.grad(phi(u).sum(), u, create_graph=True)
    if not first.requires_grad:
        return first.detach(), torch.zeros_like(u)
    (second,) = torch.autograd.grad(first.sum(), u, allow_unused=True, materialize_grads=True)
    return first.detach(), second


def copies(u: Sequence[Tensor]) -> list[Tensor]:
    return [layer.detach().clone() for layer in u]


@dataclass
class Relaxed:
    u: list[Tensor]
    residuals: list[float]


@dataclass
class Reference:
    """One network: `kind` of energy, weights (n_{l+1}, n_l), biases, a φ per layer, a cost."""

    kind: str
    W: list[Tensor]
    b: list[Tensor]
    phi: list[Phi]
    cost: str = "squared_error"

    def energy(self, u: list[Tensor]) -> Tensor:
        return ENERGIES[self.kind](u, self.W, self.b, self.phi)

    def total(self, u: list[Tensor], y: Tensor | None = None, beta: float = 1.0) -> Tensor:
        """F = E + β C, per sample; E where there is no target."""
        E = self.energy(u)
        return E if y is None else E + beta * COSTS[self.cost](u[-1], y)

    def state_gradient(
        self, u: list[Tensor], y: Tensor | None = None, beta: float = 1.0
    ) -> list[Tensor]:
        u = [layer.requires_grad_() for layer in copies(u)]
        return list(torch.autograd.grad(self.total(u, y, beta).sum(), u))

    def weight_gradient(self, u: list[Tensor]) -> list[Tensor]:
        """∂⟨E⟩/∂θ in the order W[0], b[0], W[1], b[1] …"""
        u, flat = copies(u), self._leaves()
        with_leaves = Reference(self.kind, flat[::2], flat[1::2], self.phi, self.cost)
        return list(torch.autograd.grad(with_leaves.energy(u).mean(), flat))

    def _leaves(self) -> list[Tensor]:
        pairs = zip(self.W, self.b, strict=True)
        return [p.detach().clone().requires_grad_() for pair in pairs for p in pair]

    def relax(
        self,
        u: list[Tensor],
        n: int,
        dt: float,
        *,
        tau: float = 1.0,
        tol: float = 0.0,
        y: Tensor | None = None,
        beta: float = 1.0,
        clamped: Sequence[int] = (0,),
    ) -> Relaxed:
        """Synchronous Euler steps of every layer not clamped; stops after a residual < tol."""
        u, residuals = copies(u), []
        free = [i for i in range(len(u)) if i not in clamped]
        for _ in range(n):
            g = self.state_gradient(u, y, beta)
            residuals.append(sum(float(g[i].norm(dim=1).mean()) for i in free))
            u = [layer - dt / tau * g[i] if i in free else layer for i, layer in enumerate(u)]
            if residuals[-1] < tol:
                break
        return Relaxed(u, residuals)

    def feedforward(self, x: Tensor) -> list[Tensor]:
        u = [x]
        for i in range(len(self.W)):
            u.append(self.phi[i](u[i]) @ self.W[i].T + self.b[i])
        return u

    def contrast(
        self, u_plus: list[Tensor], u_minus: list[Tensor], distance: float
    ) -> list[Tensor]:
        """[∂E/∂θ(u_plus) − ∂E/∂θ(u_minus)] / distance: β one-sided, 2β centered."""
        plus, minus = self.weight_gradient(u_plus), self.weight_gradient(u_minus)
        return [(p - m) / distance for p, m in zip(plus, minus, strict=True)]

    def backprop_gradient(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """Gradient of the mean cost of the feed-forward pass."""
        flat = self._leaves()
        network = Reference(self.kind, flat[::2], flat[1::2], self.phi, self.cost)
        loss = COSTS[self.cost](network.feedforward(x)[-1], y).mean()
        return list(torch.autograd.grad(loss, flat))

    def free_equilibrium(self, u: list[Tensor]) -> list[Tensor]:
        """The stationary point of E near `u` with layer 0 clamped, by Newton's method."""
        for _ in range(50):
            g = torch.cat([layer.flatten() for layer in self.state_gradient(u)[1:]])
            if float(g.norm()) < 1e-13:
                return u
            u = self._unpack(u, self._pack(u) - torch.linalg.solve(self._hessian(u), g))
        raise AssertionError("the reference's own Newton iteration did not converge")

    def implicit_gradient(self, u_free: list[Tensor], y: Tensor) -> list[Tensor]:
        """d⟨C(u*)⟩/dθ at an equilibrium u*: −∂²E/∂θ∂u · (∂²E/∂u²)⁻¹ ∂⟨C⟩/∂u."""
        u = [layer.requires_grad_() for layer in copies(u_free)]
        cost = COSTS[self.cost](u[-1], y).mean()
        dC = torch.autograd.grad(cost, u, allow_unused=True, materialize_grads=True)
        adjoint = torch.linalg.solve(self._hessian(u_free), self._pack(list(dC)))
        flat = self._leaves()
        network = Reference(self.kind, flat[::2], flat[1::2], self.phi, self.cost)
        dE = torch.autograd.grad(network.energy(u).sum(), u[1:], create_graph=True)
        along = torch.cat([layer.flatten() for layer in dE]) @ adjoint
        return [-g for g in torch.autograd.grad(along, flat)]

    def _pack(self, u: list[Tensor]) -> Tensor:
        return torch.cat([layer.flatten() for layer in u[1:]])

    def _unpack(self, like: list[Tensor], flat: Tensor) -> list[Tensor]:
        parts = torch.split(flat, [layer.numel() for layer in like[1:]])
        rest = [p.view_as(layer) for p, layer in zip(parts, like[1:], strict=True)]
        return [like[0], *rest]

    def _hessian(self, u: list[Tensor]) -> Tensor:
        def total(flat: Tensor) -> Tensor:
            return self.energy(self._unpack(u, flat)).sum()

        return torch.autograd.functional.hessian(total, self._pack(copies(u)))
