"""The base of every energy: state, clamping, and autograd where there is no closed form.

The smallest new energy is a subclass with an ``energy(u)`` method. ``state_gradient``,
``weight_gradient`` and ``contrast_`` are closed forms to add where speed asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from eqprop.activation import one_a_layer
from eqprop.connection import Dense, Op
from eqprop.cost import CEnergy
from eqprop.energy.names import PublicNames
from eqprop.energy.state import Buffers, State
from eqprop.energy.sweeps import LayerSweeps


class EnergyBasedModel(LayerSweeps, PublicNames):
    """Layers ``u[0] … u[L]`` of pre-activations under an energy E(u; W, b).

    Args:
        dimensions: units of each layer, the input first.
        c_energy: the cost β C that nudges the last layer.
        batch_size: samples processed together.
        phi: activations, one a layer (names or functions); with one fewer, the input's is the
            identity.

    Attributes:
        u: the state, one tensor (batch, size) a layer; assigning to a layer copies into it.
        W: connections, ``W[l]`` from layer l to l + 1, with ``weight`` and ``bias``.
        clamp_du: for each layer, whether it is clamped.
        generator: source of ``reset_state``'s noise; None is torch's own.
    """

    has_feedforward = False
    """Whether ``fast_init`` puts the state at the free equilibrium."""

    def __init__(
        self,
        dimensions: Sequence[int],
        c_energy: CEnergy,
        batch_size: int,
        phi: Sequence[str | Callable[[Tensor], Tensor]],
    ) -> None:
        super().__init__()
        self.dimensions = [int(n) for n in dimensions]
        self.n_layers = len(self.dimensions)
        self.c_energy = c_energy
        self.phi = one_a_layer(phi, self.n_layers)
        self.W = nn.ModuleList(
            Dense(pre, post)
            for pre, post in zip(self.dimensions[:-1], self.dimensions[1:], strict=True)
        )
        self.clamp_du = [False] * self.n_layers
        self.generator: torch.Generator | None = None
        self._allocate(int(batch_size))
        self.reset_state()

    # ------------------------------------------------------------------ what an energy defines

    def energy(self, u: Sequence[Tensor]) -> Tensor:
        """E(u) per sample (batch,), differentiable in ``u`` and the weights, without the cost."""
        raise NotImplementedError(f"{type(self).__name__} must define energy(u)")

    def fast_init(self) -> None:
        """Put the state at the free equilibrium by a feed-forward pass, where the energy has one.

        Raises:
            NotImplementedError: if a relaxation is the only way there.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no feed-forward initialisation: relax instead"
        )

    def state_gradient(self, u: Sequence[Tensor], out: Sequence[Tensor | None]) -> None:
        """Write ∂E/∂u[l] into ``out[l]`` where that is not None; by autograd unless overridden."""
        wanted = [i for i, buffer in enumerate(out) if buffer is not None]
        with torch.enable_grad():
            leaves = [layer.detach().requires_grad_(i in wanted) for i, layer in enumerate(u)]
            grads = torch.autograd.grad(
                self.energy(leaves).sum(), [leaves[i] for i in wanted], allow_unused=True
            )
        for i, grad in zip(wanted, grads, strict=True):
            buffer = out[i]
            assert buffer is not None
            buffer.zero_() if grad is None else buffer.copy_(grad)

    def weight_gradient(self, u: Sequence[Tensor]) -> list[Tensor]:
        """∂⟨E⟩/∂θ of the batch mean, in ``parameters()`` order; by autograd unless overridden."""
        with torch.enable_grad():
            loss = self.energy([layer.detach() for layer in u]).mean()
        return self.parameter_gradient(loss)

    def contrast_(
        self,
        free: Sequence[Tensor] | None,
        nudged: Sequence[Tensor],
        scale: float,
        out: Sequence[Tensor],
    ) -> None:
        """Write ``scale · [∂E/∂θ(nudged) − ∂E/∂θ(free)]`` into ``out``, in ``parameters()`` order.

        ``free = None`` says that the free state's gradient is zero. Source: DESIGN §2, learning.
        """
        after = self.weight_gradient(nudged)
        before = [None] * len(after) if free is None else self.weight_gradient(free)
        for grad, a, b in zip(out, after, before, strict=True):
            (grad.copy_(a) if b is None else torch.sub(a, b, out=grad)).mul_(scale)

    def descent_ops(self, step: float) -> list[Op]:
        """The operations of one Euler step ``u ← u − step · ∂F/∂u``.

        They may be replayed while the weights are held and no layer is clamped or released.
        """
        work = self.free_layers("gradient")

        def descend() -> None:
            self.total_gradient(work)
            for layer, grad in zip(self._u, work, strict=True):
                if grad is not None:
                    layer.sub_(grad, alpha=step)

        return [descend]

    def holding_weights(self) -> AbstractContextManager[None]:
        """Promise that no weight changes within it; a closed form may keep what they imply."""
        return nullcontext()

    # ------------------------------------------------------------------ the state

    @property
    def u(self) -> State:
        return self._u

    @u.setter
    def u(self, layers: Sequence[Tensor]) -> None:
        if len(layers) != self.n_layers:
            raise ValueError(f"{self.n_layers} layers, but {len(layers)} tensors were given")
        if layers is self._u:
            return
        self.resize(layers[0].shape[0])
        self._u[:] = layers

    def _allocate(self, batch_size: int) -> None:
        like = next(self.parameters(), torch.empty(0))
        self.batch_size = batch_size
        self.buffers_of = Buffers([(n,) for n in self.dimensions], batch_size, like)
        self._u = State(self.buffers_of("u"))

    def resize(self, batch_size: int) -> None:
        """Change the batch size; the state's values are undefined until set again."""
        if batch_size == self.batch_size:
            return
        if batch_size < 1:
            raise ValueError(f"a batch has at least one sample, not {batch_size}")
        self.buffers_of.resize(batch_size)
        self.batch_size = batch_size
        self._u = State(self.buffers_of("u"))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        old = list(self._u)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._allocate(self.batch_size)
        self._u[:] = [fn(layer) for layer in old]
        return self

    def _index(self, i: int) -> int:
        if not -self.n_layers <= i < self.n_layers:
            raise IndexError(f"layer {i}: there are {self.n_layers} layers")
        return i % self.n_layers

    def clamp_layer(self, i: int, u_i: Tensor) -> None:
        """Hold layer ``i`` at ``u_i`` (batch, size), which is copied.

        Raises:
            ValueError: if the shape is not that of the layer.
        """
        i = self._index(i)
        self._u[i] = u_i
        self.clamp_du[i] = True

    def release_layer(self, i: int) -> None:
        """Let layer ``i`` move again, from where it is."""
        self.clamp_du[self._index(i)] = False

    def reset_state(self) -> None:
        """Draw every layer that is not clamped from N(0, 1)."""
        for layer, clamped in zip(self._u, self.clamp_du, strict=True):
            if not clamped:
                layer.normal_(generator=self.generator)

    @torch.no_grad()
    def snapshot(self, name: str) -> list[Tensor]:
        """The state copied into the buffers called ``name``; clamped layers are shared."""
        copies = zip(self._u, self.free_layers(name), strict=True)
        return [layer if copy is None else copy.copy_(layer) for layer, copy in copies]

    def free_layers(self, name: str) -> list[Tensor | None]:
        """The buffers called ``name``, with None in the place of each clamped layer."""
        buffers = self.buffers_of(name)
        return [None if c else b for c, b in zip(self.clamp_du, buffers, strict=True)]

    def state_sum(self) -> Tensor:
        """The sum of all units above the input, a scalar: finite only if each of them is."""
        return torch.stack([layer.sum() for layer in self._u[1:]]).sum()

    # ------------------------------------------------------------------ energy and gradients

    @property
    def E(self) -> Tensor:
        """F = E + β C per sample (batch,), of the state, weights and target as they are now."""
        energy = self.energy(self._u)
        if self.c_energy.target is None:
            return energy
        return energy + self.c_energy.compute_energy(self._u[-1])

    @torch.no_grad()
    def total_gradient(self, out: Sequence[Tensor | None]) -> None:
        """Write ∂F/∂u[l] at the present state into ``out[l]`` wherever that is not None."""
        self.state_gradient(self._u, out)
        nudge = self.nudge()
        if nudge is not None and out[-1] is not None:
            out[-1].add_(nudge)

    def nudge(self) -> Tensor | None:
        """β ∂C/∂u[L] in a buffer; None where no target is set or the last layer is clamped."""
        if self.c_energy.target is None or self.clamp_du[-1]:
            return None
        return self.c_energy.gradient(self._u[-1], self.buffers_of("nudge")[-1])

    def residual(self, grad: Sequence[Tensor | None]) -> Tensor:
        """``Σ_l mean_batch ‖∂F/∂u[l]‖₂`` of a state gradient, a scalar tensor."""
        norms = [
            torch.linalg.vector_norm(g.flatten(1), dim=1).mean() for g in grad if g is not None
        ]
        return torch.stack(norms).sum() if norms else self._u[0].new_zeros(())

    def parameter_gradient(self, loss: Tensor) -> list[Tensor]:
        """∂loss/∂θ in ``parameters()`` order; zeros where the loss does not depend on θ."""
        parameters = list(self.parameters())
        grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        return [
            torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads, strict=True)
        ]
