"""A phase as one compiled loop, on the tensors of a model: the arrays and numbers that it takes."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eqprop.activation import Identity, Sigmoid, Tanh
from eqprop.cost import CrossEntropy, SquaredError
from eqprop.energy import ConditionalGaussian, RestrictedHopfield

MOST = 16  # loops bound to the tensors of one model at a time: few solvers and strengths take turns

_WORKERS: list[ThreadPoolExecutor] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_WORKERS.clear)  # a forked process has one thread only


class Move(NamedTuple):
    """A solver's step, for the loop: Euler's, or Newton's with its clip."""

    newton: bool
    step: float
    clip: float = 0.0


@torch.no_grad()
def feedforward(model: Any) -> None:
    """The feed-forward pass of a model to which the loop `applies`: each layer at its drive."""
    drive = model.buffers_of("drive")
    with model.holding_weights():  # `relax` keeps the product of the input
        model.constants(model.u)
        model.u[1].copy_(drive[1])
        relax(model, Move(newton=False, step=0.0), 0)
        model.u[2].copy_(drive[2])


@torch.no_grad()
def relax(model: Any, move: Move, n_steps: int) -> None:
    """Take ``n_steps`` of ``model``, for whose kind there is a loop, in place."""
    model.constants(model.u)
    cost, output = model.nudging_cost(), model.u[2]
    loop = _loop_of(model, move, cost)
    target = output if cost is None else cost.target_for(output)
    loop.run(target, n_steps, model.state_is_noted())
    torch.add(loop.sent, loop.bias, out=model.buffers_of("drive")[2])
    model.note_state(loop.sums)


def _loop_of(model: Any, move: Move, cost: Any) -> _Loop:
    """The loop for ``model`` as it is, bound to its tensors anew where they are others."""
    joint = model.W[1]
    key = (
        *(move, type(model), type(model.phi[1]), type(model.phi[2]), type(cost)),
        *(0.0 if cost is None else cost.beta, joint.weight.data_ptr(), joint.bias.data_ptr()),
    )
    bound = model.buffers_of.bound
    if key not in bound:
        if len(bound) >= MOST:
            bound.clear()
        bound[key] = _Loop(model, move, cost)
    loop: _Loop = bound[key]
    return loop


class _Loop:
    """Steps of one kind on the buffers of one model. Looking all of it up costs 0.1 ms a phase."""

    def __init__(self, model: Any, move: Move, cost: Any) -> None:
        from eqprop.kernels import blocks, chain  # loads numba

        self.function = chain.relax
        self.how = (*_functions(model), _rule(model, move, cost))
        self.sent = model.buffers_of("sent")[2]
        self.sums = self.sent.new_empty(len(self.sent))
        self.states = [model.u[1], model.buffers_of("r")[1], model.u[2], self.sent, self.sums]
        self.drive = model.buffers_of("drive")[1]
        self.weight, self.bias = model.W[1].weight.detach(), model.W[1].bias.detach()
        self.missing = -len(self.weight) % blocks.ROWS
        self.stiff = move.newton and type(model) is ConditionalGaussian
        self.none_stiff = torch.zeros_like(self.weight[0])
        tensors = [*self.states, self.drive]
        self.in_place = len(self.sent) % 2 == 0 and all(t.is_contiguous() for t in tensors)
        self.arrays = [t.numpy() for t in tensors]

    def run(self, target: Tensor, n_steps: int, known: bool) -> None:
        """Take the steps with ``target`` (batch, K)."""
        weight, stiffness = self.weight, self.none_stiff
        if self.stiff:
            stiffness = weight.square().sum(0)
        if self.missing:
            weight = torch.cat([weight, weight.new_zeros(self.missing, weight.shape[1])])
        fixed = [t.numpy() for t in (weight, self.bias, stiffness)]
        if self.in_place:
            arrays = [*self.arrays, target.contiguous().numpy()]
            self._call(arrays, fixed, n_steps, known)
            return
        copies = [_in_pairs(t) for t in (*self.states, self.drive, target)]
        self._call([t.numpy() for t in copies], fixed, n_steps, known)
        for home, found in zip(self.states, copies, strict=False):
            home.copy_(found[: len(home)])

    def _call(self, arrays: list[Any], fixed: list[Any], n_steps: int, known: bool) -> None:
        h, r, o, sent, sums, drive, target = arrays
        given = (h, r, drive, o, sent, sums, target, *fixed, *self.how, n_steps, known)
        _in_threads(partial(self.function, *given), len(h))


def _in_pairs(tensor: Tensor) -> Tensor:
    """A copy row by row with the last row once more where their number is odd."""
    return torch.cat([tensor, tensor[-1:]]) if len(tensor) % 2 else tensor.contiguous()


def _functions(model: Any) -> tuple[Any, Any]:
    """φ of the hidden layer, and what a Hopfield network's output sends back."""
    from eqprop.kernels import blocks, chain

    f = blocks.F
    known = {
        Sigmoid: chain.Phi(blocks.SIGMOID, f(0), f(1), f(1)),
        Tanh: chain.Phi(blocks.TANH, f(1), f(0), f(1)),
        Identity: chain.Phi(blocks.IDENTITY, f(1), f(0), f(0)),
    }
    hopfield = type(model) is RestrictedHopfield
    return known[type(model.phi[1])], known[type(model.phi[2]) if hopfield else Identity]


def _rule(model: Any, move: Move, cost: Any) -> Any:
    from eqprop.kernels import blocks, chain

    f = blocks.F
    kinds = {SquaredError: chain.SQUARED_ERROR, CrossEntropy: chain.CROSS_ENTROPY}
    return chain.Rule(
        newton=move.newton,
        step=f(move.step),
        clip=f(move.clip),
        hopfield=type(model) is RestrictedHopfield,
        curvature=f(model.own_curvature),
        cost=chain.NO_COST if cost is None else kinds[type(cost)],
        beta=f(0.0 if cost is None else cost.beta),
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
