"""Costs C(u_L, y), which nudge the output layer towards its target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from eqprop.network.analytic import log_softmax, softmax
from eqprop.network.closed_form import ClosedForms
from eqprop.network.local import Quadratic


class Cost(ClosedForms, ABC):
    """A function of the output and the target, which it is told at each call.

    A new cost defines ``cost`` only; autograd gives the rest.
    """

    closed_forms: ClassVar = {
        "gradient": ("cost",),
        "curvature": ("cost", "gradient"),
        "quadratic": ("cost", "gradient"),
        "analytic": ("cost", "gradient", "curvature"),
    }
    analytic: ClassVar[bool] = False
    """Whether all of this takes complex outputs too, as analytic functions of them."""

    @abstractmethod
    def cost(self, u_last: Tensor, target: Tensor) -> Tensor:
        """C(u_last, target), per sample (batch,), differentiable in ``u_last``."""

    def gradient(self, u_last: Tensor, target: Tensor, out: Tensor) -> Tensor:
        """Write ∂C/∂u_last into ``out``, of ``u_last``'s shape, and return it."""
        with torch.enable_grad():
            leaf = u_last.detach().requires_grad_()
            (grad,) = torch.autograd.grad(self.cost(leaf, target).sum(), leaf)
        return out.copy_(grad)

    def curvature(self, u_last: Tensor, target: Tensor, out: Tensor) -> Tensor:
        """Write the diagonal of ∂²C/∂u_last² into ``out``; by autograd one pass a unit."""
        with torch.enable_grad():
            leaf = u_last.detach().requires_grad_()
            (grad,) = torch.autograd.grad(self.cost(leaf, target).sum(), leaf, create_graph=True)
            for j, first in enumerate(grad.flatten(1).sum(0)):
                second = None
                if first.requires_grad:
                    (second,) = torch.autograd.grad(
                        first, leaf, retain_graph=True, allow_unused=True
                    )
                out.flatten(1)[:, j] = 0.0 if second is None else second.flatten(1)[:, j]
        return out

    def quadratic(self, target: Tensor) -> Quadratic | None:
        """C as ½ w ‖u‖² − v · u plus a constant; None where it is not of that form."""
        return None


class CEnergy(Cost):
    """A cost that remembers a strength and a target: the published interface of a model's cost.

    The runner and the estimators use neither: they pass a strength and a target along.

    Args:
        beta: nudging strength β; its sign may be negative.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        for base in cls.__mro__[: cls.__mro__.index(CEnergy)]:  # mixins too
            if vars(base).get("cost", _cost_by_energy) is not _cost_by_energy:
                cls._given_cost = base.cost  # type: ignore[attr-defined,method-assign]
                break
            if "compute_energy" in vars(base):  # given alone: it is what trains
                cls.cost = _cost_by_energy  # type: ignore[method-assign]
                break
        super().__init_subclass__(**options)

    def _given_cost(self, u_last: Tensor, target: Tensor) -> Tensor:
        """The last ``cost`` that a class defines itself."""
        raise NotImplementedError(f"{type(self).__name__} defines no cost(u_last, target)")

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = beta
        self.target: Tensor | None = None

    def set_target(self, target: Tensor | None) -> None:
        """Set the target, one-hot (batch, n), or None for a free phase."""
        self.target = target

    def compute_energy(self, u_last: Tensor) -> Tensor:
        """β C per sample (batch,); zeros without a target.

        Raises:
            ValueError: if the target has another shape than ``u_last``.
        """
        if self.target is None:
            return u_last.new_zeros(len(u_last))
        return self.beta * self._given_cost(u_last, fitting(self.target, u_last))


def _cost_by_energy(self: CEnergy, u_last: Tensor, target: Tensor) -> Tensor:
    """C, where a subclass gives ``compute_energy`` instead: that at β = 1."""
    before = self.beta, self.target
    self.beta, self.target = 1.0, target
    try:
        return self.compute_energy(u_last)
    finally:
        self.beta, self.target = before


class SquaredError(CEnergy):
    """C = ½ ‖u_L − y‖²."""

    analytic = True

    def cost(self, u_last: Tensor, target: Tensor) -> Tensor:
        return 0.5 * (u_last - target).square().flatten(1).sum(1)

    def gradient(self, u_last: Tensor, target: Tensor, out: Tensor) -> Tensor:
        return torch.sub(u_last, target, out=out)

    def curvature(self, u_last: Tensor, target: Tensor, out: Tensor) -> Tensor:
        return out.fill_(1.0)

    def quadratic(self, target: Tensor) -> Quadratic:
        return Quadratic(1.0, target)


class CrossEntropy(CEnergy):
    """C = −Σ_k y_k log softmax(u_L)_k: −log softmax(u_L)_y for a one-hot target."""

    analytic = True

    def cost(self, u_last: Tensor, target: Tensor) -> Tensor:
        return -(target * log_softmax(u_last, 1)).sum(1)

    def gradient(self, u_last: Tensor, target: Tensor, out: Tensor) -> Tensor:
        p = softmax(u_last, 1, out)
        return p.mul_(target.sum(1, keepdim=True)).sub_(target)

    def curvature(self, u_last: Tensor, target: Tensor, out: Tensor) -> Tensor:
        p = softmax(u_last, 1, out)
        return torch.addcmul(p, p, p, value=-1.0, out=p).mul_(target.sum(1, keepdim=True))


class Nudge(NamedTuple):
    """β C(u_L, y): what a nudged phase adds to the energy.

    Attributes:
        cost: C.
        target: y (batch, *shape of the output).
        beta: the strength, a tensor: a scalar, or (batch,) with one for each sample.
    """

    cost: Cost
    target: Tensor
    beta: Tensor

    def energy(self, u_last: Tensor) -> Tensor:
        """β C per sample (batch,)."""
        return self.beta * self.cost.cost(u_last, self.target)

    def gradient(self, u_last: Tensor, out: Tensor) -> Tensor:
        """β ∂C/∂u_L, into ``out``."""
        return self.cost.gradient(u_last, self.target, out).mul_(per_sample(self.beta, u_last))

    def curvature(self, u_last: Tensor, out: Tensor) -> Tensor:
        """The diagonal of β ∂²C/∂u_L², into ``out``."""
        return self.cost.curvature(u_last, self.target, out).mul_(per_sample(self.beta, u_last))

    def if_quadratic(self) -> Quadratic | None:
        """The nudge as ½ w ‖u‖² − v · u; None where the cost is not of that form."""
        found = self.cost.quadratic(self.target)
        if found is None:
            return None
        beta = per_sample(self.beta, self.target)
        flat = isinstance(found.w, float) and found.w == 0.0
        return Quadratic(0.0 if flat else beta * found.w, beta * found.v)

    def quadratic(self) -> Quadratic:
        """As ``if_quadratic``.

        Raises:
            ValueError: if the cost is not quadratic.
        """
        found = self.if_quadratic()
        if found is None:
            raise ValueError(
                f"dynamics=exact needs cost=mse: {type(self.cost).__name__} is not quadratic"
            )
        return found


def per_sample(value: Tensor, like: Tensor) -> Tensor:
    """A scalar as it is; (batch,) in a shape that broadcasts to ``like`` (batch, …)."""
    return value.view(-1, *[1] * (like.dim() - 1)) if value.dim() else value


def fitting(target: Tensor, u_last: Tensor) -> Tensor:
    """The target in ``u_last``'s precision.

    Raises:
        ValueError: if its shape is another.
    """
    if target.shape != u_last.shape:
        raise ValueError(
            f"the target has shape {tuple(target.shape)}, but the last layer {tuple(u_last.shape)}"
        )
    return target.to(u_last.dtype)
