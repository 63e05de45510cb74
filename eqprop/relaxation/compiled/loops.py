"""A phase as one compiled loop, on the arrays of a network and a state."""

from __future__ import annotations

import importlib
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from eqprop.network import (
    ConditionalGaussian,
    CrossEntropy,
    Dense,
    Gaussian,
    Hopfield,
    Network,
    Nudge,
    RestrictedHopfield,
    SquaredError,
    State,
)
from eqprop.network.activation import Sigmoid, Tanh
from eqprop.network.buffers import NARROW
from eqprop.network.piecewise import Identity
from eqprop.relaxation.compiled import cache

log = logging.getLogger(__name__)

PAYS = 1e8
"""Moves of a unit in an epoch from which on compiling pays: they save 0.1 s or more an epoch, and
compiling takes about 10 s, once on a machine."""

SLOW = 1.0  # seconds from which on a person wants to know what took them

_WORKERS: list[ThreadPoolExecutor] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_WORKERS.clear)  # a forked process has one thread only


class Move(NamedTuple):
    """A solver's step, for the loop: Euler's, or Newton's with its clip."""

    newton: bool
    step: float
    clip: float = 0.0


# ---------------------------------------------------------------------- when they apply


def fits(network: Network) -> bool:
    """Whether there is a loop for ``network`` while its input alone is clamped.

    There is for one hidden layer between input and a narrow output, in float32 on the CPU, where
    φ has an exponential (else plain passes are cheap), and for no class but our own.
    """
    edges: list[Any] = list(network.W)
    return (
        type(network) in (Network, ConditionalGaussian, RestrictedHopfield)
        and type(network.local) in (Gaussian, Hopfield)
        and [len(shape) for shape in network.shapes] == [1, 1, 1]
        and network.shapes[-1][0] <= NARROW
        and type(network.phi[1]) in (Sigmoid, Tanh)
        and type(network.phi[2]) in (Sigmoid, Tanh, Identity)
        and all(type(e) is Dense for e in edges)
        and [(e.source, e.target) for e in edges] == [(0, 1), (1, 2)]
        and all(e.bias is not None and e.feedback is None for e in edges)
        and (weight := edges[0].weight).dtype is torch.float32
        and weight.device.type == "cpu"
    )


def applies(network: Network, state: State, nudge: Nudge | None) -> bool:
    """Whether the loop can relax ``state`` as it is now, nudged like this."""
    known = nudge is None or (
        type(nudge.cost) in (SquaredError, CrossEntropy) and nudge.beta.dim() == 0
    )
    return known and state.clamped == [True, False, False] and fits(network)


def pays(network: Network, steps: int, n_samples: int) -> bool:
    """Whether an epoch of ``n_samples`` with so many steps each is long enough to compile for.

    It does not ask how many epochs there are, so that a run that is made longer goes on alike.
    """
    units = sum(shape[0] for shape in network.shapes[1:])
    return n_samples * steps * units >= PAYS


def load() -> None:
    """Load the compiled loops, compiling them where this machine has not done so before."""
    start = time.perf_counter()
    log.info("loading the relaxation's compiled loops (compiled first, once on a machine: 10 s)")
    numba: Any = importlib.import_module("numba")
    folder = numba.config.CACHE_DIR = cache.find_folder()
    tiny = ConditionalGaussian([1, 1, 1], SquaredError(1.0), 1, ["identity", "sigmoid", "identity"])
    tiny.clamp_layer(0, tiny.u[0])
    first = partial(relax, tiny, tiny.state, None, Move(newton=False, step=0.0), 0)
    try:
        first()
    except Exception as error:  # a full disk, or whatever is wrong with what is kept there
        log.warning("cannot keep the compiled loops in %s (%s): made for this run", folder, error)
        cache.keep_nothing()
        first()
    if (seconds := time.perf_counter() - start) > SLOW:
        log.info("the relaxation's loops were compiled in %.0f s", seconds)


# ---------------------------------------------------------------------- a phase


@torch.no_grad()
def feed_forward(network: Network, state: State) -> None:
    """The feed-forward pass of a network to which the loop `applies`: each layer at its drive."""
    state.u[1].copy_(network.drive(state, 1))
    state.moved(1)
    relax(network, state, None, Move(newton=False, step=0.0), 0)
    state.u[2].copy_(state.sites[2].d)
    state.moved(2)


@torch.no_grad()
def relax(network: Network, state: State, nudge: Nudge | None, move: Move, n_steps: int) -> None:
    """Take ``n_steps`` of ``state``, for whose network there is a loop, in place."""
    network.drive(state, 1)
    loop = _LOOPS.get(state)
    if loop is None:
        loop = _LOOPS[state] = _Loop(state)
    loop.run(network, state, nudge, move, n_steps)
    state.moved(1)
    state.moved(2)
    state.rate_known[1] = state.drive_known[2] = state.holding


class _Loop:
    """The arrays of one state, and the loop's own. Looking them up costs 0.1 ms a phase."""

    def __init__(self, state: State) -> None:
        from eqprop.relaxation.compiled import blocks, chain  # loads numba

        self.function = chain.relax
        self.rows = blocks.ROWS
        output = state.u[2]
        self.sent = torch.zeros_like(output)  # W φ(h), without the bias
        sums = output.new_empty(len(output))
        self.states = [state.u[1], state.sites[1].r, output, self.sent, sums]
        tensors = [*self.states, state.sites[1].d]
        self.in_place = len(output) % 2 == 0 and all(t.is_contiguous() for t in tensors)
        self.arrays = [t.numpy() for t in tensors]
        self.none_stiff = torch.zeros_like(state.u[1][0])

    def run(
        self, network: Network, state: State, nudge: Nudge | None, move: Move, n_steps: int
    ) -> None:
        """Take the steps, and leave φ(h) and the output's drive in the state's buffers."""
        edge: Any = network.W[1]
        weight, bias = edge.weight.detach(), edge.bias.detach()
        known = state.rate_known[1] and state.drive_known[2]
        if known:
            torch.sub(state.sites[2].d, bias, out=self.sent)
        stiffness = self.none_stiff
        if move.newton and type(network.local) is Gaussian:
            stiffness = weight.square().sum(0)
        if missing := -len(weight) % self.rows:
            weight = torch.cat([weight, weight.new_zeros(missing, weight.shape[1])])
        fixed = [t.numpy() for t in (weight, bias, stiffness)]
        how = (*_functions(network), _rule(network, move, nudge), n_steps, known)
        target = state.u[2] if nudge is None else nudge.target
        if self.in_place:
            self._call([*self.arrays, target.contiguous().numpy()], fixed, how)
        else:
            copies = [_in_pairs(t) for t in (*self.states, state.sites[1].d, target)]
            self._call([t.numpy() for t in copies], fixed, how)
            for home, found in zip(self.states, copies, strict=False):
                home.copy_(found[: len(home)])
        torch.add(self.sent, bias, out=state.sites[2].d)

    def _call(self, arrays: list[Any], fixed: list[Any], how: tuple[Any, ...]) -> None:
        h, r, o, sent, sums, drive, target = arrays
        run = partial(self.function, h, r, drive, o, sent, sums, target, *fixed, *how)
        _in_threads(run, len(h))


_LOOPS: WeakKeyDictionary[State, _Loop] = WeakKeyDictionary()


def _in_pairs(tensor: Tensor) -> Tensor:
    """A copy row by row with the last row once more where their number is odd."""
    return torch.cat([tensor, tensor[-1:]]) if len(tensor) % 2 else tensor.contiguous()


def _functions(network: Network) -> tuple[Any, Any]:
    """φ of the hidden layer, and what a Hopfield network's output sends back."""
    from eqprop.relaxation.compiled import blocks, chain

    f = blocks.F
    known = {
        Sigmoid: chain.Phi(blocks.SIGMOID, f(0), f(1), f(1)),
        Tanh: chain.Phi(blocks.TANH, f(1), f(0), f(1)),
        Identity: chain.Phi(blocks.IDENTITY, f(1), f(0), f(0)),
    }
    hopfield = type(network.local) is Hopfield
    return known[type(network.phi[1])], known[type(network.phi[2]) if hopfield else Identity]


def _rule(network: Network, move: Move, nudge: Nudge | None) -> Any:
    from eqprop.relaxation.compiled import blocks, chain

    f = blocks.F
    kinds: dict[Any, int] = {SquaredError: chain.SQUARED_ERROR, CrossEntropy: chain.CROSS_ENTROPY}
    return chain.Rule(
        newton=move.newton,
        step=f(move.step),
        clip=f(move.clip),
        hopfield=type(network.local) is Hopfield,
        curvature=f(network.local.scale),
        cost=chain.NO_COST if nudge is None else kinds[type(nudge.cost)],
        beta=f(0.0 if nudge is None else float(nudge.beta)),
    )


def _in_threads(run: Callable[[int, int], None], n_samples: int) -> None:
    """Run samples 0 … n in as many threads as torch may use; their number changes no result."""
    threads = min(torch.get_num_threads(), n_samples // 8)
    if threads < 2:
        run(0, n_samples)
        return
    if not _WORKERS:
        _WORKERS.append(ThreadPoolExecutor(thread_name_prefix="eqprop"))
    size = -(-n_samples // threads)
    size += size % 2  # whole pairs
    rest = [
        _WORKERS[0].submit(run, start, min(start + size, n_samples))
        for start in range(size, n_samples, size)
    ]
    run(0, min(size, n_samples))
    for part in rest:
        part.result()
