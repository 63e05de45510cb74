"""The state of a network for one batch, and the buffers beside it, which never move.

Buffers that live as long as the state does are what makes a relaxation cheap (allocation and
passes over memory cost more than its arithmetic) and what a CUDA graph needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from eqprop.network.activation import Activation
from eqprop.network.buffers import Layers, zeros, zeros_for_product
from eqprop.network.edge import Edge, Memory
from eqprop.network.local import Site


class Snapshot(NamedTuple):
    """A state as it was, with the drives that were known of it while the weights were held."""

    u: list[Tensor]
    drives: dict[int, Tensor]
    memory: dict[Edge, Memory]
    at_rest: set[int]
    hold: object | None


class Disturbance:
    """What a device does to a state besides relaxing it: nothing, until a subclass says so.

    Attributes:
        each_step: whether ``step`` is to be called.
    """

    each_step = False

    def phase(self, state: State, nudged: bool) -> None:
        """A phase begins."""

    def step(self, state: State) -> None:
        """A relaxation has taken a step."""

    def reading(self, state: State) -> AbstractContextManager[None]:
        """Within it the layers are as they are read; at its end they are what they were."""
        return nullcontext()


class State:
    """What a network relaxes: the layers of one batch, and which of them are clamped.

    Args:
        shapes: one sample's shape of each layer.
        phi: one activation a layer.
        rate_phi: what makes the rates of the states: the same, or identities.
        edges: what joins the layers.
        batch_size: samples, fixed.
        like: a tensor of the dtype and device wanted.
        generator: source of ``reset``'s noise; None is torch's own.
        channels_last: whether pictures keep the channels of a pixel together.

    Attributes:
        draws: in an evaluation, what fills a layer (batch, *shape) with each sample's own noise, in
            the place of ``generator``. Where it is given, what becomes of a sample may not depend
            on the others: they stop at a tolerance one by one.
        u: the layers, each (batch, *shape).
        clamped: for each layer, whether it is held.
        sites: for each layer, its state, rate, drive and pressure: the buffers themselves.
        signal, gradient, curvature, pulled, work, contrast: more buffers shaped like ``u``.
        norm: what a Newton step keeps of the edges out of a layer while the weights are held.
        rate_known, drive_known: whether a buffer holds what belongs to the layers as they are now.
        carries: whether a free phase may start from where the last batch ended.
        noise: what disturbs it, if anything.
        memory: what each edge keeps of the rate it has driven with last, such as a pool's arg-max.
        at_rest: layers that no signal has reached since a feed-forward pass: there, the gradient
            is zero.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        phi: Sequence[Activation],
        rate_phi: Sequence[Activation],
        edges: Sequence[Edge],
        batch_size: int,
        like: Tensor,
        generator: torch.Generator | None = None,
        channels_last: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"a batch has at least one sample, not {batch_size}")
        self.batch_size = batch_size
        layers = range(len(shapes))
        self.drives = [[e.target for e in edges if e.source == layer] for layer in layers]
        sources = [[e.source for e in edges if e.target == layer] for layer in layers]
        self._reach = [
            {layer, *sources[layer]}.union(self.drives[layer], *(sources[t] for t in targets))
            for layer, targets in enumerate(self.drives)
        ]  # where the gradient depends on a layer
        self.memory: dict[Edge, Memory] = {edge: {} for edge in edges}
        self.generator = generator
        self.carries = False
        self.draws: Callable[[Tensor], object] | None = None
        self.noise: Disturbance | None = None
        self.at_rest: set[int] = set()

        def buffers() -> list[Tensor]:
            return zeros(shapes, batch_size, like, channels_last)

        self.u = Layers(buffers())
        self.clamped = [False] * len(shapes)
        self.signal, self.contrast = buffers(), buffers()
        self.gradient, self.curvature = buffers(), buffers()
        self.pulled, self.work = buffers(), buffers()
        self.sites = [
            Site(
                phi=phi[layer],
                u=u,
                r=u if rate_phi[layer].is_identity else torch.zeros_like(u),
                d=zeros_for_product(u),
                p=torch.zeros_like(u) if self.drives[layer] else None,
                work=torch.zeros_like(u) if rate_phi[layer].is_identity else None,
            )
            for layer, u in enumerate(self.u)
        ]
        self._hold: object | None = None
        self.forget()

    def clamp(self, layer: int, value: Tensor) -> None:
        """Hold ``layer`` at ``value`` (batch, *shape), which is copied.

        Raises:
            ValueError: if the shape is not that of the layer.
        """
        self.u[layer] = value
        self.clamped[layer] = True
        self.moved(layer)

    def release(self, layer: int) -> None:
        """Let ``layer`` move again, from where it is."""
        self.clamped[layer] = False

    @property
    def free(self) -> list[int]:
        """The layers that are not clamped, in order."""
        return [layer for layer, clamped in enumerate(self.clamped) if not clamped]

    def reset(self, init: str = "normal") -> None:
        """Draw every free layer from N(0, 1), or set it to ``zeros``."""
        for layer in self.free:
            if init != "normal":
                self.u[layer].zero_()
            elif self.draws is not None:
                self.draws(self.u[layer])
            else:
                self.u[layer].normal_(generator=self.generator)
        self.forget()

    def copy(self) -> Snapshot:
        """Copies of the free layers, and of what they drive; clamped ones are shared."""
        moving = {target for layer in self.free for target in self.drives[layer]}
        return Snapshot(
            [u if held else u.clone() for u, held in zip(self.u, self.clamped, strict=True)],
            {i: self.sites[i].d.clone() for i in moving if self.drive_known[i]},
            {edge: dict(kept) for edge, kept in self.memory.items()},
            set(self.at_rest),
            self._hold,
        )

    def restore(self, before: Snapshot) -> None:
        """Put back what ``copy`` returned; what was known then is known again, in the same hold."""
        for layer in self.free:
            self.u[layer] = before.u[layer]
            self.moved(layer)
        if self._hold is None or before.hold is not self._hold:
            return
        self.at_rest = set(before.at_rest)
        for layer, drive in before.drives.items():
            self.sites[layer].d.copy_(drive)
            self.drive_known[layer] = True
        for edge, kept in before.memory.items():
            if edge.target in before.drives:  # what clamped layers drive may be known since
                self.memory[edge] = dict(kept)

    # ------------------------------------------------- what is known, while the weights are held

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within it no weight changes, so that rates and drives of unmoved layers stay known.

        The product of a clamped input with its weights, the only large one of a relaxation, is so
        computed once for all phases of a batch. Whoever moves a layer says so by ``moved``.
        """
        if self.holding:
            yield
            return
        self._hold = object()
        try:
            yield
        finally:
            self._hold = None
            self.forget()

    @property
    def holding(self) -> bool:
        """Whether the weights are held, so that what is known stays known."""
        return self._hold is not None

    def forget(self) -> None:
        """Nothing is known any more, nor by a copy: weights or layers have changed."""
        layers = len(self.u)
        self._hold = object() if self.holding else None
        self.rate_known, self.drive_known = [False] * layers, [False] * layers
        self.norm: list[Tensor | float | None] = [None] * layers
        self.at_rest = set()

    def moved(self, layer: int) -> None:
        """Say that ``layer`` has moved."""
        self.rate_known[layer] = False
        for target in self.drives[layer]:
            self.drive_known[target] = False
        if self.at_rest:
            self.at_rest -= self._reach[layer]

    def reading(self) -> AbstractContextManager[None]:
        """Within it the layers are what is read of them: of a noisy device not what they are."""
        return nullcontext() if self.noise is None else self.noise.reading(self)
