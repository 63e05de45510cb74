"""A chain of layers joined by connections: what the closed forms of such energies share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from eqprop.connection import Dense
from eqprop.energy.base import EnergyBasedModel


class LayeredEnergy(EnergyBasedModel):
    """An energy of a chain, with ∂E/∂W[l-1] = −⟨post[l] r[l-1]ᵀ⟩ and ∂E/∂b[l-1] = −⟨post[l]⟩."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._kept: dict[int, tuple[object, ...]] = {}
        super().__init__(*args, **kwargs)

    @abstractmethod
    def posts(self, u: Sequence[Tensor], r: Sequence[Tensor], name: str) -> Sequence[Tensor]:
        """The factor post[l] of each layer's weight gradient; ``name``s buffers it may use."""

    def connection(self, level: int) -> Dense:
        """The connection from layer ``level`` to the next."""
        return cast(Dense, self.W[level])

    def rates(self, u: Sequence[Tensor], name: str = "r") -> list[Tensor]:
        """r[l] = φ_l(u[l]), in the buffers called ``name``."""
        out = self.buffers_of(name)
        return [phi.value_(u[i], out[i]) for i, phi in enumerate(self.phi)]

    def drives(self, u: Sequence[Tensor], r: Sequence[Tensor]) -> list[Tensor]:
        """``W[l-1] r[l-1] + b[l-1]`` for l ≥ 1 (the first entry is unused).

        What comes from a clamped layer is computed once and kept until that layer or its weights
        change: with the input clamped this is the only large product of a relaxation.
        """
        out = self.buffers_of("drive")
        for level in range(self.n_layers - 1):
            if not self._is_kept(level, u[level], out[level + 1]):
                self.connection(level).forward_(r[level], out[level + 1])
        return out

    def rates_and_drives(self, u: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """r and the drives: differentiable where gradients are recorded, else in buffers."""
        if u is self._u and not torch.is_grad_enabled():
            r: Sequence[Tensor] = self.rates(u)
            return r, self.drives(u, r)
        r = [phi(u[i]) for i, phi in enumerate(self.phi)]
        return r, [u[0], *(self.connection(i)(r[i]) for i in range(self.n_layers - 1))]

    def _is_kept(self, level: int, pre: Tensor, drive: Tensor) -> bool:
        """Whether ``drive`` holds this product already; if not, note that it is about to."""
        if not self.clamp_du[level] or pre is not self._u[level]:
            self._kept.pop(level, None)
            return False
        weight, bias = self.connection(level).weight, self.connection(level).bias
        versions = ((t.data_ptr(), t._version) for t in (pre, weight, bias))
        key = (drive.data_ptr(), drive.shape, *versions)
        if self._kept.get(level) == key:
            return True
        self._kept[level] = key
        return False

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
        scale = -scale / nudged[0].shape[0]
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
