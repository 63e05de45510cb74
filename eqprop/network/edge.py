"""What joins two layers: K(r), its adjoint, and the gradient of its weights."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from eqprop.network.closed_form import ClosedForms

Memory = dict[str, Tensor]
"""What an edge keeps of the rate that it has driven with last, for the adjoint; it may be empty.
Tensors are put in, and never written to afterwards: a copy of a state shares them."""

Shape = tuple[int, ...]
"""The shape of one sample of a layer: ``(units,)``, or ``(channels, height, width)``."""


class Edge(nn.Module, ClosedForms, ABC):
    """Computes ``K(r)`` from the rate r of a layer and adds it to the drive of another.

    A new edge defines ``forward``; autograd gives the rest, until closed forms are added for
    speed. The first edge into a layer carries that layer's bias, one number a unit (or a channel).

    Args:
        in_shape: of one sample of the layer that the edge comes from.
        out_shape: of one sample of the layer that it drives.

    Attributes:
        source, target: the layers that it joins, set by the network.
        bias: a parameter that is added to the drive of the target, if the edge has one.
        feedback: an edge of the same kind whose weights take the place of this one's in the
            adjoint; None for the same weights in both directions.
    """

    closed_forms: ClassVar = {
        "drive": ("forward",),
        "pull": ("forward", "drive"),
        "adjoint": ("forward", "drive"),
        "gradient": ("forward", "drive"),
        "squared_norm": ("forward", "drive"),
        "linear": ("forward", "drive"),
    }
    linear: bool = False
    """Whether K is linear in r: its norms then stay while the weights are held."""

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int]) -> None:
        super().__init__()
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        self.source, self.target = 0, 1
        self.feedback: Edge | None = None

    @property
    def back(self) -> Edge:
        """The edge by whose weights signals come back: ``feedback``, or this one."""
        return self if self.feedback is None else self.feedback

    @abstractmethod
    def forward(self, r: Tensor) -> Tensor:
        """K(r) (batch, *out_shape) without the bias, differentiable; r is (batch, *in_shape)."""

    def __call__(self, r: Tensor) -> Tensor:
        """K(r) + bias, differentiable: what an energy of one's own calls, as torch.nn.Linear."""
        product: Tensor = super().__call__(r)
        bias = self.shaped_bias()
        return product if bias is None else product + bias

    def shaped_bias(self) -> Tensor | None:
        """The bias in a shape that broadcasts to (batch, *out_shape); None without one."""
        bias: Tensor | None = getattr(self, "bias", None)
        rest = len(self.out_shape) - 1
        return bias if bias is None or rest == 0 else bias.view(-1, *[1] * rest)

    def weights(self) -> Iterator[nn.Parameter]:
        """The parameters of K, without the bias and those of ``feedback``."""
        named = self.named_parameters()
        return (p for name, p in named if name != "bias" and not name.startswith("feedback."))

    def drive(self, r: Tensor, out: Tensor, add: Tensor | None, memory: Memory) -> None:
        """Write K(r) + ``add`` into ``out``; ``add`` may be ``out`` itself, or a bias.

        ``memory`` is of this edge and one state: ``pull`` and ``gradient`` get it as it is left.
        """
        product = self.forward(r)
        out.copy_(product if add is None else product + add)  # it may be r itself

    def pull(
        self, r: Tensor, signal: Tensor, out: Tensor, add: Tensor | None, memory: Memory
    ) -> None:
        """Write Kᵀ ``signal`` + ``add`` into ``out``: the adjoint of K's derivative at ``r``."""
        with torch.enable_grad():
            leaf = r.detach().requires_grad_()
            (pulled,) = torch.autograd.grad(self.forward(leaf), leaf, signal)
        out.copy_(pulled if add is None else pulled + add)

    def adjoint(self, r: Tensor, signal: Tensor) -> Tensor:
        """What the source receives of ``signal``, by ``back``: differentiable in all it depends on.

        Of an edge that is not linear, and has feedback weights, it is what ``pull`` of these makes
        of the memory of this edge.
        """
        here = alias(r)
        (pulled,) = torch.autograd.grad(self.back.forward(here), here, signal, create_graph=True)
        return pulled

    def gradient(
        self,
        r: Tensor,
        signal: Tensor,
        scale: float,
        out: Sequence[Tensor],
        add: bool,
        memory: Memory,
    ) -> None:
        """Write ``scale · Σ_batch signal · ∂K(r)/∂θ`` into ``out``, or add it.

        One tensor of ``out`` for each of ``weights()``.
        """
        for buffer in out if not add else ():
            buffer.zero_()
        weights = list(self.weights())
        if not weights:
            return
        with torch.enable_grad():
            product = self.forward(r.detach())
        found = by_parameters([product], weights, [signal])
        for buffer, grad in zip(out, found, strict=True):
            if grad is not None:
                buffer.add_(grad, alpha=scale)

    def squared_norm(self, r: Tensor, stiffness: float | Tensor, memory: Memory) -> Tensor:
        """``Σ_k K_kj² stiffness_k`` of each unit j, in a shape that broadcasts to *in_shape.

        ``stiffness`` is one number, or one a unit (batch, *out_shape). Without a closed form it is
        the largest eigenvalue of KᵀK, by the power method: no diagonal element exceeds that.
        """
        grad = torch.autograd.grad
        with torch.enable_grad():
            leaf = r.detach()[:1].requires_grad_()
            product = self.forward(leaf)
            dual = torch.zeros_like(product, requires_grad=True)
            (pulled,) = grad(product, leaf, dual, create_graph=True)  # linear in dual
        places = torch.arange(1, leaf.numel() + 1, dtype=leaf.dtype, device=leaf.device)
        norms = []
        for start in (torch.ones_like(leaf), torch.sin(12.9898 * places).view_as(leaf)):
            probe = start  # an edge may annihilate one of them
            for _ in range(8):
                (forward,) = grad(pulled, dual, probe, retain_graph=True)
                (back,) = grad(product, leaf, forward, retain_graph=True)
                norm = torch.linalg.vector_norm(back)
                probe = back / norm.clamp_min(torch.finfo(norm.dtype).tiny)
            norms.append(norm)
        largest = float(stiffness.max()) if isinstance(stiffness, Tensor) else stiffness
        return torch.maximum(*norms).detach() * largest


def by_parameters(
    of: Sequence[Tensor],
    parameters: Sequence[Tensor],
    along: Sequence[Tensor] | None = None,
    retain_graph: bool = False,
) -> list[Tensor | None]:
    """Σ along · ∂of/∂θ by autograd; ``along`` is None for scalars.

    None for parameters that play no part in it, or that require no gradient.
    """
    gradients: list[Tensor | None] = [None] * len(parameters)
    places = [i for i, p in enumerate(parameters) if p.requires_grad]
    kept = [i for i, x in enumerate(of) if x.requires_grad]
    if places and kept:
        found = torch.autograd.grad(
            [of[i] for i in kept],
            [parameters[i] for i in places],
            None if along is None else [along[i] for i in kept],
            retain_graph=retain_graph,
            allow_unused=True,
        )
        for i, gradient in zip(places, found, strict=True):
            gradients[i] = gradient
    return gradients


def alias(x: Tensor) -> Tensor:
    """x under another name, by which autograd can derive with x held; its graph goes on to x."""
    return x.view_as(x) if x.requires_grad else x.detach().requires_grad_()


class Dense(Edge):
    """Every unit with every unit: K(r) = W vec(r), ``weight`` (post, pre) as torch.nn.Linear's.

    Weight and bias start as those of ``torch.nn.Linear`` do: uniform in ± 1/√(units of the source).

    Args:
        in_shape: of one sample of the layer that the edge comes from.
        units: of the layer that it drives.
        bias: whether the layer has a bias.
    """

    linear = True

    def __init__(
        self,
        in_shape: Sequence[int],
        units: Annotated[int, Ge(1), Doc("units of the layer")],
        bias: bool = True,
    ) -> None:
        super().__init__(in_shape, (units,))
        fan_in = math.prod(self.in_shape)
        self.weight = nn.Parameter(torch.empty(units, fan_in))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if bias:
            self.bias = nn.Parameter(torch.empty(units))
            nn.init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def forward(self, r: Tensor) -> Tensor:
        return nn.functional.linear(r.flatten(1), self.weight)

    def drive(self, r: Tensor, out: Tensor, add: Tensor | None, memory: Memory) -> None:
        flat = r if r.dim() == 2 else r.flatten(1)
        if add is None:
            torch.mm(flat, self.weight.t(), out=out)
        else:
            torch.addmm(add, flat, self.weight.t(), out=out)

    def pull(
        self, r: Tensor, signal: Tensor, out: Tensor, add: Tensor | None, memory: Memory
    ) -> None:
        if out.dim() > 2:  # its elements may lie in memory in another order
            pulled = (signal @ self.weight).view(out.shape)
            torch.add(pulled, 0.0 if add is None else add, out=out)
        elif add is None:
            torch.mm(signal, self.weight, out=out)
        else:
            torch.addmm(add, signal, self.weight, out=out)

    def gradient(
        self,
        r: Tensor,
        signal: Tensor,
        scale: float,
        out: Sequence[Tensor],
        add: bool,
        memory: Memory,
    ) -> None:
        torch.addmm(out[0], signal.t(), r.flatten(1), beta=float(add), alpha=scale, out=out[0])

    def squared_norm(self, r: Tensor, stiffness: float | Tensor, memory: Memory) -> Tensor:
        squares = self.weight.square()
        if isinstance(stiffness, Tensor):
            return (stiffness.flatten(1) @ squares).view(-1, *self.in_shape)
        return squares.sum(0).mul_(stiffness).view(self.in_shape)
