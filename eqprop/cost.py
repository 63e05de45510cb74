"""Costs β C(u_L, y): what nudges the output layer towards its target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from eqprop.connection import Op


class CEnergy(ABC):
    """A cost energy: value, gradient and diagonal curvature, all already multiplied by β.

    A new cost needs ``cost(u_last, target)`` only; autograd gives the rest.

    Args:
        beta: nudging strength β; its sign may be negative.
    """

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self.target: Tensor | None = None

    def set_target(self, target: Tensor | None) -> None:
        """Set the target, one-hot (batch, n), or None for a free phase."""
        self.target = target

    def target_for(self, u_last: Tensor) -> Tensor:
        """The target in ``u_last``'s precision.

        Raises:
            RuntimeError: if no target is set.
            ValueError: if its shape is not that of ``u_last``.
        """
        if self.target is None:
            raise RuntimeError("the cost has no target: call set_target first")
        if self.target.shape != u_last.shape:
            raise ValueError(
                f"the target has shape {tuple(self.target.shape)}, "
                f"but the last layer {tuple(u_last.shape)}"
            )
        if self.target.dtype != u_last.dtype:
            self.target = self.target.to(u_last.dtype)
        return self.target

    @abstractmethod
    def cost(self, u_last: Tensor, target: Tensor) -> Tensor:
        """C(u_last, target), per sample (batch,), differentiable in ``u_last``."""

    def compute_energy(self, u_last: Tensor) -> Tensor:
        """β C per sample (batch,); zeros without a target."""
        if self.target is None:
            return u_last.new_zeros(u_last.shape[0])
        return self.beta * self.cost(u_last, self.target_for(u_last))

    def gradient(self, u_last: Tensor, out: Tensor | None = None) -> Tensor:
        """β ∂C/∂u_last, of ``u_last``'s shape, into ``out`` if given; zeros without a target."""
        if self.target is None:
            return _zeros(u_last, out)
        with torch.enable_grad():
            leaf = u_last.detach().requires_grad_()
            (grad,) = torch.autograd.grad(self.compute_energy(leaf).sum(), leaf)
        return grad if out is None else out.copy_(grad)

    def gradient_ops(self, u_last: Tensor, out: Tensor) -> tuple[list[Op], float]:
        """Operations that write a gradient into ``out``, and the factor that makes it β ∂C/∂u_last.

        They hold the target as it is now. The factor saves a pass: whoever subtracts the gradient
        scales it anyway.
        """
        return [partial(self.gradient, u_last, out)], 1.0

    def curvature(self, u_last: Tensor, out: Tensor | None = None) -> Tensor:
        """The diagonal of β ∂²C/∂u_last², of ``u_last``'s shape; zeros without a target.

        By autograd it takes one backward pass a unit.
        """
        if self.target is None:
            return _zeros(u_last, out)
        with torch.enable_grad():
            leaf = u_last.detach().requires_grad_()
            total = self.compute_energy(leaf).sum()
            (grad,) = torch.autograd.grad(total, leaf, create_graph=True)
            flat = grad.flatten(1)
            columns = [_second(flat[:, j].sum(), leaf)[:, j] for j in range(flat.shape[1])]
        diagonal = torch.stack(columns, 1).reshape(u_last.shape).detach()
        return diagonal if out is None else out.copy_(diagonal)


def _zeros(u_last: Tensor, out: Tensor | None) -> Tensor:
    return torch.zeros_like(u_last) if out is None else out.zero_()


def _second(first: Tensor, leaf: Tensor) -> Tensor:
    if not first.requires_grad:
        return torch.zeros_like(leaf).flatten(1)
    (second,) = torch.autograd.grad(first, leaf, retain_graph=True, allow_unused=True)
    return torch.zeros_like(leaf).flatten(1) if second is None else second.flatten(1)


class SquaredError(CEnergy):
    """C = ½ ‖u_L − y‖²."""

    def cost(self, u_last: Tensor, target: Tensor) -> Tensor:
        return 0.5 * (u_last - target).square().sum(1)

    def gradient(self, u_last: Tensor, out: Tensor | None = None) -> Tensor:
        if self.target is None:
            return _zeros(u_last, out)
        return torch.sub(u_last, self.target_for(u_last), out=out).mul_(self.beta)

    def gradient_ops(self, u_last: Tensor, out: Tensor) -> tuple[list[Op], float]:
        return [partial(torch.sub, u_last, self.target_for(u_last), out=out)], self.beta

    def curvature(self, u_last: Tensor, out: Tensor | None = None) -> Tensor:
        if self.target is None:
            return _zeros(u_last, out)
        return (torch.empty_like(u_last) if out is None else out).fill_(self.beta)


class CrossEntropy(CEnergy):
    """C = −Σ_k y_k log softmax(u_L)_k: −log softmax(u_L)_y for a one-hot target."""

    _mass: Tensor | None = None
    _mass_of: Tensor | None = None

    def _target_mass(self, target: Tensor) -> Tensor:
        """Σ_k y_k (batch, 1), which is 1 unless the target is not a distribution."""
        if self._mass is None or self._mass_of is not target:
            self._mass, self._mass_of = target.sum(1, keepdim=True), target
        return self._mass

    def cost(self, u_last: Tensor, target: Tensor) -> Tensor:
        return -(target * F.log_softmax(u_last, 1)).sum(1)

    def gradient(self, u_last: Tensor, out: Tensor | None = None) -> Tensor:
        if self.target is None:
            return _zeros(u_last, out)
        target = self.target_for(u_last)
        p = torch.softmax(u_last, 1, out=out)
        return p.mul_(self._target_mass(target)).sub_(target).mul_(self.beta)

    def gradient_ops(self, u_last: Tensor, out: Tensor) -> tuple[list[Op], float]:
        target = self.target_for(u_last)
        softmax = partial(torch.softmax, u_last, 1, out=out)
        return [softmax, partial(out.mul_, self._target_mass(target)), partial(out.sub_, target)], (
            self.beta
        )

    def curvature(self, u_last: Tensor, out: Tensor | None = None) -> Tensor:
        if self.target is None:
            return _zeros(u_last, out)
        mass = self._target_mass(self.target_for(u_last))
        p = torch.softmax(u_last, 1, out=out)
        return torch.addcmul(p, p, p, value=-1.0, out=p).mul_(mass).mul_(self.beta)
