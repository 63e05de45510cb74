"""The names that users of energy-based models know: a thin facade over a network and a state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from eqprop.network.activation import one_a_layer
from eqprop.network.buffers import Layers
from eqprop.network.cost import CEnergy, Nudge, fitting
from eqprop.network.edge import Dense, by_parameters
from eqprop.network.energy import Gaussian, Hopfield
from eqprop.network.gradient import WeightGradient
from eqprop.network.local import LocalEnergy
from eqprop.network.network import Network
from eqprop.network.residuals import residual
from eqprop.network.state import State


class _Undefined(LocalEnergy):
    """In the place of the local terms where a subclass gives the whole energy."""

    def value(self, u: Tensor, r: Tensor, d: Tensor, phi: object) -> Tensor:
        raise NotImplementedError("an energy must define energy(u), or local terms")


class EnergyBasedModel(Network):
    """A chain of dense layers that also holds one state: what a loop of one's own works with.

    An energy of one's own is a subclass with ``energy(u)``; the runner trains it as it is. Nothing
    is kept between two calls: each computes what it needs from ``u``, the weights and the target.

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

    terms_of: type[LocalEnergy] = _Undefined
    """The local terms of a subclass."""

    def __init__(
        self,
        dimensions: Sequence[int],
        c_energy: CEnergy,
        batch_size: int,
        phi: Sequence[str | Callable[[Tensor], Tensor]],
    ) -> None:
        self.dimensions = [int(n) for n in dimensions]
        activations = one_a_layer(phi, len(self.dimensions))
        edges = []
        for source, (pre, post) in enumerate(
            zip(self.dimensions[:-1], self.dimensions[1:], strict=True)
        ):
            edge = Dense((pre,), post)
            edge.source, edge.target = source, source + 1
            edges.append(edge)
        super().__init__([(n,) for n in self.dimensions], activations, edges, self.terms_of())
        self.c_energy = c_energy
        self.generator: torch.Generator | None = None
        self._batch_size = int(batch_size)
        self._of_verbs: State | None = None

    # ------------------------------------------------------------------ the state

    @property
    def state(self) -> State:
        """The state that the verbs below move, drawn from N(0, 1) when it is first asked for."""
        if self._of_verbs is None:
            self._of_verbs = self.new_state(self._batch_size, self.generator)
            self._of_verbs.reset("normal")
        self._of_verbs.generator = self.generator
        return self._of_verbs

    @property
    def batch_size(self) -> int:
        return self._batch_size

    @property
    def clamp_du(self) -> list[bool]:
        return self.state.clamped

    @property
    def u(self) -> Layers:
        return self.state.u

    @u.setter
    def u(self, layers: Sequence[Tensor]) -> None:
        if len(layers) != self.n_layers:
            raise ValueError(f"{self.n_layers} layers, but {len(layers)} tensors were given")
        self.resize(len(layers[0]))
        self.state.u[:] = layers

    def resize(self, batch_size: int) -> None:
        """Change the batch size; clamps stay, but the values are undefined until set again."""
        if batch_size != self._batch_size:
            old, self._of_verbs = self.state, self.new_state(batch_size, self.generator)
            self._of_verbs.clamped = old.clamped
            self._batch_size = batch_size

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if (old := self._of_verbs) is not None:
            self._of_verbs = self.new_state(self._batch_size, self.generator)
            self._of_verbs.u[:] = [fn(layer) for layer in old.u]
            self._of_verbs.clamped = old.clamped
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
        self.state.clamp(self._index(i), u_i)

    def release_layer(self, i: int) -> None:
        """Let layer ``i`` move again, from where it is."""
        self.state.release(self._index(i))

    def reset_state(self) -> None:
        """Draw every layer that is not clamped from N(0, 1)."""
        self.state.reset("normal")

    @torch.no_grad()
    def fast_init(self) -> None:
        """Put the state at the free equilibrium by a feed-forward pass, where the energy has one.

        Raises:
            NotImplementedError: if a relaxation is the only way there.
        """
        if not self.feedforward:
            raise NotImplementedError(
                f"{type(self).__name__} has no feed-forward initialisation: relax instead"
            )
        with self.state.held():
            self.feed_forward(self.state)

    # ------------------------------------------------------------------ energy and dynamics

    def set_C_target(self, target: Tensor | None) -> None:
        """Nudge towards ``target``, one-hot (batch, n_out); None ends the nudging."""
        self.c_energy.set_target(target)

    def nudge(self) -> Nudge | None:
        """The cost as a nudge with its own strength and target; None without a target."""
        if self.c_energy.target is None:
            return None
        target = fitting(self.c_energy.target, self.u[-1])
        return Nudge(self.c_energy, target, self.u[-1].new_tensor(self.c_energy.beta))

    @property
    def E(self) -> Tensor:
        """F = E + β C per sample (batch,), of the state, weights and target as they are now."""
        nudge = self.nudge()
        energy = self.energy(self.u)
        return energy if nudge is None else energy + nudge.energy(self.u[-1])

    def update_energy(self) -> None:
        """Nothing: ``E`` is computed when it is read, and so is always up to date."""

    @torch.no_grad()
    def u_step(self, dt: float, tau: float) -> float:
        """One Euler step; returns the residual ``Σ_l mean_batch ‖∂F/∂u[l]‖₂`` that it followed."""
        with self.state.held():
            gradient = self.gradient(self.state, self.nudge())
        for i, g in enumerate(gradient):
            if g is not None:
                self.u[i].sub_(g, alpha=dt / tau)
                self.state.moved(i)
        return float(residual(gradient))

    @torch.no_grad()
    def u_relax(self, dt: float, n_relax: int, tol: float, tau: float) -> float:
        """Up to ``n_relax`` Euler steps, until a residual < ``tol``; returns Σ_batch ΔF."""
        before = self.E.sum()
        for _ in range(n_relax):
            if self.u_step(dt, tau) < tol:
                break
        return float(self.E.sum() - before)

    # ------------------------------------------------------------------ learning

    def w_get_gradients(self, loss: Tensor | None = None) -> list[Tensor]:
        """∂loss/∂θ in ``parameters()`` order; without a loss, of the batch-mean energy."""
        if loss is None:
            gradient = WeightGradient(self)
            with self.state.held():
                gradient.add(self.state, 1.0)
                return gradient.finish(self.state)
        parameters = list(self.parameters())
        grads = by_parameters([loss], parameters)
        return [
            torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads, strict=True)
        ]

    def w_optimize(
        self,
        free_grad: Sequence[Tensor],
        nudged_grad: Sequence[Tensor],
        w_optimizer: torch.optim.Optimizer,
    ) -> None:
        """One optimizer step along the contrastive update (1/β)(nudged − free)."""
        for parameter, free, nudged in zip(self.parameters(), free_grad, nudged_grad, strict=True):
            parameter.grad = (nudged - free) / self.c_energy.beta
        w_optimizer.step()


class ConditionalGaussian(EnergyBasedModel):
    """E = Σ_l ‖u_l − W_{l-1} r_{l-1} − b_{l-1}‖², the predictive coding energy."""

    terms_of = Gaussian


class RestrictedHopfield(EnergyBasedModel):
    """E = ½ Σ_{l ≥ 0} ‖u_l‖² − Σ_{l ≥ 1} r_lᵀ (W_{l-1} r_{l-1} + b_{l-1})."""

    terms_of = Hopfield
