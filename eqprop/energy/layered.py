"""A chain of layers joined by connections: what the closed forms of such energies share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from eqprop.connection import Dense, Op
from eqprop.elementwise import Activation
from eqprop.energy.base import EnergyBasedModel


def replay(ops: Iterable[Op]) -> None:
    """Call each operation once, in order."""
    for op in ops:
        op()


def kink_ops(
    phi: Activation, grad: Tensor, u: Tensor, kept: Tensor, finish: Sequence[Op]
) -> list[Op]:
    """``finish``, which turns φ' ⊙ … in ``grad`` into the gradient, with care at φ's kinks."""
    if not phi.pieces:
        return list(finish)
    return [partial(kept.copy_, grad), *finish, partial(phi.at_kinks_, grad, kept, u)]


def _key(source: Tensor, result: Tensor) -> tuple[object, ...]:
    """What tells whether ``result`` still belongs to ``source``."""
    return result.data_ptr(), result.shape, source.data_ptr(), source._version


class LayeredEnergy(EnergyBasedModel):
    """A chain, with ∂E/∂W[l-1] = −c ⟨post[l] r[l-1]ᵀ⟩ and ∂E/∂b[l-1] = −c ⟨post[l]⟩."""

    post_factor = 1.0
    """The constant c above."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._kept: dict[int, tuple[object, ...]] = {}
        self._rated: dict[int, tuple[object, ...]] = {}
        self._witnessed: list[Tensor] = []
        self._summed: tuple[Tensor, list[tuple[object, ...]]] | None = None
        self._depth = 0
        super().__init__(*args, **kwargs)

    @abstractmethod
    def posts(self, u: Sequence[Tensor], r: Sequence[Tensor], name: str) -> Sequence[Tensor]:
        """The factor post[l] of each layer's weight gradient; ``name``s buffers it may use."""

    def connection(self, level: int) -> Dense:
        """The connection from layer ``level`` to the next."""
        return cast(Dense, self.W[level])

    def rates(self, u: Sequence[Tensor], name: str = "r") -> list[Tensor]:
        """r[l] = φ_l(u[l]), in the buffers called ``name``."""
        out = list(self.buffers_of(name))
        for i, phi in enumerate(self.phi):
            if self._depth == 0 or self._rated.get(i) != _key(u[i], out[i]):
                self._rated.pop(i, None)
                out[i] = phi.value_(u[i], out[i])
        return out

    def note_state(self, sums: Tensor) -> None:
        """Say that something other than torch moved the layers above the clamped input.

        It has left the hidden layers' rates and the drives that come from them in their buffers:
        they are kept while the weights are held and the state stays. ``sums`` (batch,) are those
        of each sample's hidden units.
        """
        u, r, drive = self._u, self.buffers_of("r"), self.buffers_of("drive")
        torch.autograd.graph.increment_version(u[1:])
        for level in range(1, self.n_layers - 1):
            self._rated[level] = _key(u[level], r[level])
            self._kept[level] = _key(u[level], drive[level + 1])
        self._summed = sums, [_key(layer, layer) for layer in u[1:-1]]

    def state_sum(self) -> Tensor:
        if self._summed is not None:
            sums, keys = self._summed
            if keys == [_key(layer, layer) for layer in self._u[1:-1]]:
                return sums.sum() + self._u[-1].sum()
        return super().state_sum()

    def state_is_noted(self) -> bool:
        """Whether all that `note_state` keeps is still what belongs to the state."""
        u, r, drive = self._u, self.buffers_of("r"), self.buffers_of("drive")
        return self._depth > 0 and all(
            self._rated.get(level) == _key(u[level], r[level])
            and self._kept.get(level) == _key(u[level], drive[level + 1])
            for level in range(1, self.n_layers - 1)
        )

    @torch.no_grad()
    def begin_sweeps(self) -> None:
        self.constants(self._u)
        self.rates(self._u)

    def moved_ops(self, i: int) -> list[Op]:
        return [partial(self.phi[i].value_, self._u[i], self.buffers_of("r")[i])]

    def rate_views(self, u: Sequence[Tensor]) -> list[Tensor]:
        """Where the rates are: the state itself where φ is the identity."""
        r = self.buffers_of("r")
        return [u[i] if phi.is_identity else r[i] for i, phi in enumerate(self.phi)]

    def constants(self, u: Sequence[Tensor]) -> None:
        """Compute, for all samples, the rates of clamped layers and what they drive."""
        r, drive = self.buffers_of("r"), self.buffers_of("drive")
        for level, clamped in enumerate(self.clamp_du):
            if not clamped:
                continue
            rate = self.phi[level].value_(u[level], r[level])
            above = level + 1
            if above < self.n_layers and not self._is_kept(level, u[level], drive[above]):
                self.connection(level).forward_op(rate, drive[above])()

    def rate_ops(self, u: Sequence[Tensor], r: Sequence[Tensor]) -> list[Op]:
        """The rates of the layers that are not clamped."""
        self._rated.clear()
        free = (i for i in range(len(u)) if not self.clamp_du[i])
        return [
            partial(phi.value_, u[i], r[i]) for i in free if not (phi := self.phi[i]).is_identity
        ]

    def drive_op(self, i: int, r: Sequence[Tensor], drive: Sequence[Tensor]) -> list[Op]:
        """The drive of layer i ≥ 1, unless it comes from a clamped layer and so is constant."""
        if i == 0 or self.clamp_du[i - 1]:
            return []
        self._kept.pop(i - 1, None)
        return [self.connection(i - 1).forward_op(r[i - 1], drive[i])]

    def drives(self, u: Sequence[Tensor], r: Sequence[Tensor]) -> list[Tensor]:
        """``W[l-1] r[l-1] + b[l-1]`` for l ≥ 1 (the first entry is unused).

        While the weights are held, what comes from a clamped layer is computed once: with the
        input clamped this is the only large product of a relaxation.
        """
        out = self.buffers_of("drive")
        for level in range(self.n_layers - 1):
            if not self._is_kept(level, u[level], out[level + 1]):
                self.connection(level).forward_op(r[level], out[level + 1])()
        return out

    def rates_and_drives(self, u: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """r and the drives: differentiable where gradients are recorded, else in buffers."""
        if u is self._u and not torch.is_grad_enabled():
            r: Sequence[Tensor] = self.rates(u)
            return r, self.drives(u, r)
        r = [phi(u[i]) for i, phi in enumerate(self.phi)]
        return r, [u[0], *(self.connection(i)(r[i]) for i in range(self.n_layers - 1))]

    @contextmanager
    def holding_weights(self) -> Iterator[None]:
        """Within it the weights do not change, and what comes from clamped layers is kept.

        Torch's version counters cannot tell a change: neither ``Adam(fused=True)`` nor writing to
        ``.data`` raises them.
        """
        if self._depth == 0:
            self._forget()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._forget()

    def _forget(self) -> None:
        self._kept.clear()
        self._rated.clear()

    def _is_kept(self, level: int, pre: Tensor, drive: Tensor) -> bool:
        """Whether ``drive`` holds this product already; if not, note that it is about to."""
        key = _key(pre, drive)
        if self._depth > 0 and self._kept.get(level) == key:
            return True
        self._kept.pop(level, None)
        if self._depth > 0 and self.clamp_du[level] and pre is self._u[level]:
            self._kept[level] = key
        return False

    @torch.no_grad()
    def u_step(self, dt: float, tau: float) -> float:
        witness = self._witness()
        same = len(witness) == len(self._witnessed) and all(
            torch.equal(now, then) for now, then in zip(witness, self._witnessed, strict=True)
        )
        if not same:
            self._forget()
            self._witnessed = witness
        self._depth += 1  # holds the weights without forgetting what earlier steps kept
        try:
            return super().u_step(dt, tau)
        finally:
            self._depth -= 1

    def _witness(self) -> list[Tensor]:
        """``W v + b`` of each connection from a clamped layer, for a fixed v: shows any change.

        Reading the weights once is ten times cheaper than the product that it may save.
        """
        levels = [i for i in range(self.n_layers - 1) if self.clamp_du[i]]
        witness = []
        for level in levels:
            connection = self.connection(level)
            probe = torch.linspace(
                0.5, 1.5, self.dimensions[level], dtype=connection.weight.dtype
            ).to(connection.weight.device)
            witness.append(torch.addmv(connection.bias, connection.weight, probe))
        return witness

    @torch.no_grad()
    def weight_gradient(self, u: Sequence[Tensor]) -> list[Tensor]:
        grads = [torch.empty_like(p) for p in self.W.parameters()]
        self.contrast_(None, u, 1.0, grads)
        return grads

    @torch.no_grad()
    def contrast_(
        self,
        free: Sequence[Tensor] | None,
        nudged: Sequence[Tensor],
        scale: float,
        out: Sequence[Tensor],
    ) -> None:
        scale *= -self.post_factor / nudged[0].shape[0]
        r = self.rates(nudged)
        post, delta = self.posts(nudged, r, "post"), self.buffers_of("delta")
        if free is not None:
            r_free = self.rates(free, "r_free")
            post_free = self.posts(free, r_free, "post_free")
        for level in range(self.n_layers - 1):
            connection, grads = self.connection(level), out[2 * level : 2 * level + 2]
            after = post[level + 1]
            if free is not None and self.clamp_du[level]:  # one product serves both phases
                after = torch.sub(after, post_free[level + 1], out=delta[level + 1])
            connection.gradient_(after, r[level], scale, *grads)
            if free is not None and not self.clamp_du[level]:
                connection.add_gradient_(post_free[level + 1], r_free[level], -scale, *grads)
