"""Explicit Euler, synchronous over the layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor
from typing_extensions import Doc

from eqprop.network import Network, Nudge, Site, State, residual
from eqprop.network.cost import per_sample
from eqprop.network.edge import alias
from eqprop.network.network import rest_at_bounds_
from eqprop.relaxation.compiled import Move
from eqprop.relaxation.settings import TimeConstant
from eqprop.relaxation.solver import Solver

OpenStepSize = Annotated[
    Annotated[float, Gt(0)] | None,
    Doc("step size, in the unit of tau (null: 0.1 where the free phase is a pass, else 0.2)"),
]
OpenSteps = Annotated[
    Annotated[int, Ge(1)] | None,
    Doc("steps of the free phase at most (null: 20 where the free phase is a pass, else 50)"),
]
PASS, RELAX = (0.1, 20), (0.2, 50)
"""What is left open: dt and steps, where a pass is the free equilibrium, and where none is."""
SHRINK, GROW = 0.5, 1.1
ROUNDING = 8.0  # an energy rises only by more than this many of its own last digits


class Euler(Solver):
    """``u ← u − (dt/τ) ∂F/∂u`` on every layer that is not clamped, all from the same state.

    Args:
        adaptive: take back the step of each sample whose energy rose, and halve that sample's
            step size; it grows back, up to dt, while the energy falls.
        clip: project the state after each step, on an interval [low, high], or with ``auto`` each
            layer on the range of its activation. The original EP is Euler on [0, 1] with
            hard_sigmoid (Scellier & Bengio 2017).
        dt, n_relax: see :class:`Solver`; None is 0.1 and 20, until ``suit`` knows the network.
        tau, keys: see :class:`Solver`.
    """

    capturable: ClassVar = True
    follows_slope: ClassVar = True
    moves_complex: ClassVar = True

    def __init__(
        self,
        dt: OpenStepSize = 0.1,
        tau: TimeConstant = 1.0,
        n_relax: OpenSteps = 20,
        adaptive: Annotated[
            bool,
            Doc("take back a step that raises a sample's energy, and halve that sample's step"),
        ] = False,
        clip: Annotated[
            list[float] | Literal["auto"] | None,
            Doc("[low, high] or auto (the activation's range): where the state is kept"),
        ] = None,
        **keys: Any,
    ) -> None:
        found = PASS[1] if n_relax is None else n_relax
        super().__init__(found, dt=PASS[0] if dt is None else dt, tau=tau, **keys)
        self._open = dt is None, n_relax is None, keys.get("n_nudged") is None
        if isinstance(clip, str) and clip != "auto":
            raise ValueError(f"dynamics.clip={clip}: must be null, auto or [low, high]")
        if clip is not None and clip != "auto" and (len(clip) != 2 or not clip[0] < clip[1]):
            raise ValueError(f"dynamics.clip={list(clip)}: must be [low, high] with low < high")
        self.adaptive = adaptive
        self.clip = clip
        self._size = self._energy = torch.empty(0)  # (batch,): each sample's step, and its energy

    def suit(self, network: Network) -> None:
        of_dt, of_steps, as_free = self._open
        dt, steps = PASS if self.feeds_forward(network) else RELAX
        self.dt = dt * self.tau if of_dt else self.dt
        self.n_relax = steps if of_steps else self.n_relax
        self.n_nudged = self.n_relax if as_free else self.n_nudged

    def check(self, network: Network) -> None:
        super().check(network)
        if self.adaptive and network.asymmetric:
            raise ValueError(
                "dynamics.adaptive=true: with feedback weights of their own (model.feedback) the "
                "layers follow no energy that could fall; choose dynamics.adaptive=false"
            )

    def bounds(self, network: Network, layer: int) -> tuple[float, float] | None:
        """The interval that ``layer`` is kept in; None for no bound."""
        if layer == 0:
            return None
        low, high = network.domains[layer]
        if self.clip is not None:
            least, most = network.phi[layer].range if self.clip == "auto" else self.clip
            low, high = max(low, least), min(high, most)
        return None if math.isinf(low) and math.isinf(high) else (float(low), float(high))

    def complex_obstacle(self) -> str | None:
        if self.adaptive or self.clip is not None:
            key = "clip" if self.clip is not None else "adaptive"
            return f"dynamics.{key} compares sizes, and complex numbers have no order"
        return super().complex_obstacle()

    def begin(self, network: Network, state: State, nudge: Nudge | None) -> None:
        if self.adaptive:
            self._energy = network.energies(state, nudge)
            self._size = torch.full_like(self._energy, self.dt / self.tau)

    def initialise(self, network: Network, state: State) -> bool:
        found = super().initialise(network, state)
        if self.clip is None:
            return found
        self._project(network, state)  # which may leave the equilibrium of a feed-forward pass
        for layer in state.free:
            state.moved(layer)
        return False

    def move(self) -> Move | None:
        """What a compiled loop has to do in a step, where there is one for it."""
        plain = not self.adaptive and self.clip is None
        return Move(newton=False, step=self.dt / self.tau) if plain else None

    def step(self, network: Network, state: State, nudge: Nudge | None) -> None:
        own_gradient = type(self).gradient is not Euler.gradient
        if self.adaptive or own_gradient or not network.descends_by_terms:
            self._follow(network, state, nudge, self.gradient(network, state, nudge))
            return
        step, last = self.dt / self.tau, len(state.u) - 1
        free = state.free
        sites = sites_of(network, state, free)  # before any of them moves
        pull = None
        if nudge is not None and last in free:
            pull = nudge.gradient(state.u[last], state.gradient[last])
        for layer, site in zip(free, sites, strict=True):
            work = state.work[layer], state.pulled[layer]
            network.terms[layer].descend(site, step, work)
        if pull is not None:
            state.u[last].sub_(pull, alpha=step)
        self._project(network, state)

    def gradient(self, network: Network, state: State, nudge: Nudge | None) -> list[Tensor | None]:
        """As the network's, and 0 where a bound is what holds the unit."""
        found = network.gradient(state, nudge)
        for layer, grad in enumerate(found):
            bounds = self.bounds(network, layer)
            if grad is not None and bounds is not None:
                rest_at_bounds_(grad, state.u[layer], bounds)
        return found

    def step_and_measure(self, network: Network, state: State, nudge: Nudge | None) -> Tensor:
        gradient = self.gradient(network, state, nudge)
        before = residual(gradient)
        self._follow(network, state, nudge, gradient)
        for layer in state.free:
            state.moved(layer)
        return before

    def next(self, network: Network, u: Sequence[Tensor], nudge: Nudge | None) -> list[Tensor]:
        with torch.enable_grad():
            force = network.field(u)
            if nudge is not None:
                last = alias(u[-1])
                (pull,) = torch.autograd.grad(nudge.energy(last).sum(), last, create_graph=True)
                force[-1] = force[-1] - pull
            step = self.dt / self.tau
            moved = [layer + step * f for layer, f in zip(u[1:], force, strict=True)]
        for i, layer in enumerate(moved):
            if (bounds := self.bounds(network, i + 1)) is not None:
                moved[i] = layer.clamp(*bounds)
        return [u[0], *moved]

    def _follow(
        self, network: Network, state: State, nudge: Nudge | None, gradient: list[Tensor | None]
    ) -> None:
        """Step against a gradient that is at hand."""
        if self.adaptive:
            self._careful_step(network, state, nudge, gradient)
            return
        for layer, grad in zip(state.u, gradient, strict=True):
            if grad is not None:
                layer.sub_(grad, alpha=self.dt / self.tau)
        self._project(network, state)

    def _project(self, network: Network, state: State) -> None:
        plain = self.clip is None and type(self).bounds is Euler.bounds
        if plain and not network.bounded:
            return
        for layer in state.free:
            if (bounds := self.bounds(network, layer)) is not None:
                state.u[layer].clamp_(*bounds)

    def _careful_step(
        self, network: Network, state: State, nudge: Nudge | None, gradient: list[Tensor | None]
    ) -> None:
        old = [layer.clone() for layer in state.u]
        for layer, grad in zip(state.u, gradient, strict=True):
            if grad is not None:
                layer.addcmul_(grad, per_sample(self._size, layer), value=-1.0)
        self._project(network, state)
        for i in state.free:
            state.moved(i)
        energy = network.energies(state, nudge)
        slack = ROUNDING * torch.finfo(energy.dtype).eps * self._energy.abs().clamp_min(1.0)
        rose = ~(energy <= self._energy + slack)  # a NaN has risen too
        for layer, before, grad in zip(state.u, old, gradient, strict=True):
            if grad is not None:
                layer.copy_(torch.where(per_sample(rose, layer), before, layer))
        self._energy = torch.where(rose, self._energy, energy)
        self._size *= torch.where(rose, SHRINK, GROW)
        self._size.clamp_(max=self.dt / self.tau)


def sites_of(network: Network, state: State, layers: Sequence[int]) -> list[Site]:
    """The sites of these layers, all before any of them moves; each signal is computed once."""
    targets = {target for layer in layers for target in network.drives[layer]}
    signals = {target: network.signal(state, target) for target in targets}
    return [network.site(state, layer, signals) for layer in layers]
