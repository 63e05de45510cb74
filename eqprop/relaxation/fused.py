"""When a phase runs as one compiled loop, and the tensors that it runs on."""

from __future__ import annotations

import importlib
import logging
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs
import torch

from eqprop.activation import Identity, Sigmoid, Tanh
from eqprop.connection import Dense
from eqprop.cost import CrossEntropy, SquaredError
from eqprop.energy import (
    ConditionalGaussian,
    EnergyBasedModel,
    LayeredEnergy,
    RestrictedHopfield,
)
from eqprop.energy.state import NARROW

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


def fits(model: EnergyBasedModel) -> bool:
    """Whether there is a loop for ``model`` while its input alone is clamped.

    There is for one hidden layer between input and a narrow output, in float32 on the CPU, where
    φ has an exponential (else plain passes are cheap), and for no class but our own.
    """
    weight = next(model.parameters())
    return (
        type(model) in (ConditionalGaussian, RestrictedHopfield)
        and model.n_layers == 3
        and model.dimensions[-1] <= NARROW
        and type(model.phi[1]) in (Sigmoid, Tanh)
        and type(model.phi[2]) in (Sigmoid, Tanh, Identity)
        and type(model.c_energy) in (SquaredError, CrossEntropy)
        and all(type(connection) is Dense for connection in model.W)
        and weight.dtype is torch.float32
        and weight.device.type == "cpu"
    )


def applies(model: EnergyBasedModel) -> bool:
    """Whether the loop can relax ``model`` as it is now."""
    return list(model.clamp_du) == [True, False, False] and fits(model)


def prepare(solver: Any, model: EnergyBasedModel, wanted: bool | str, n_samples: int) -> None:
    """Have ``solver`` use the loops as ``device.compile`` says, and tell where there are none."""
    if wanted is True or (wanted and pays(solver, model, n_samples)):
        solver.compile_for(model)
    if wanted is True and isinstance(model, LayeredEnergy) and not solver.compiled:
        log.warning(
            "device.compile=true changes nothing here: there are loops for one hidden layer of "
            "sigmoid or tanh, with dynamics euler (not adaptive) or newton, dynamics.tol=0, in "
            "float32 on the CPU"
        )


def pays(solver: Any, model: EnergyBasedModel, n_samples: int) -> bool:
    """Whether an epoch of ``n_samples`` is long enough for compiled loops.

    It does not ask how many epochs there are, so that a run that is made longer goes on alike.
    """
    return n_samples * solver.steps_of_both(model) * sum(model.dimensions[1:]) >= PAYS


def compile_loops() -> None:
    """Load the compiled loops, compiling them where this machine has not done so before."""
    start = time.perf_counter()
    numba: Any = importlib.import_module("numba")

    if "NUMBA_CACHE_DIR" not in os.environ:  # beside the code it may not be possible to write
        numba.config.CACHE_DIR = str(_cache_folder())
    tiny = ConditionalGaussian([1, 1, 1], SquaredError(1.0), 1, ["identity", "sigmoid", "identity"])
    tiny.clamp_layer(0, tiny.u[0])
    relax(tiny, Move(newton=False, step=0.0), 0)
    if (seconds := time.perf_counter() - start) > SLOW:
        log.info("the relaxation's loops were compiled in %.0f s", seconds)


def _cache_folder() -> Path:
    folder = Path(platformdirs.user_cache_dir("eqprop")) / "loops"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="eqprop-loops-"))


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
    """Take ``n_steps`` of ``model``, to which the loop `applies`, in place."""
    from eqprop.kernels import blocks, chain  # loads numba

    model.constants(model.u)
    n, cost = model.batch_size, model.nudging_cost()
    h, o = (layer.contiguous() for layer in model.u[1:])
    r, sent = model.buffers_of("r")[1], model.buffers_of("sent")[2]
    homes = (model.u[1], r, model.u[2], sent)
    drive = model.buffers_of("drive")[1].contiguous()
    target = o if cost is None else cost.target_for(o).contiguous()
    if n % 2:  # the loop takes pairs
        h, r, drive, o, sent, target = (
            torch.cat([a, a[-1:]]) for a in (h, r, drive, o, sent, target)
        )
    weight, bias = model.W[1].weight.detach(), model.W[1].bias.detach()
    stiffness = weight[0]  # read by Newton's step only
    if move.newton:
        gaussian = type(model) is ConditionalGaussian
        stiffness = weight.square().sum(0) if gaussian else torch.zeros_like(weight[0])
    missing = -len(weight) % blocks.ROWS
    rows = torch.cat([weight, weight.new_zeros(missing, weight.shape[1])]) if missing else weight
    arrays = [a.numpy() for a in (h, r, drive, o, sent, target, rows, bias, stiffness)]
    how = (*_functions(model), _rule(model, move), n_steps, model.state_is_noted())
    _in_threads(partial(chain.relax, *arrays, *how), len(h))
    for home, found in zip(homes, (h, r, o, sent), strict=True):
        if home.data_ptr() != found.data_ptr():
            home.copy_(found[:n])
    torch.add(homes[-1], bias, out=model.buffers_of("drive")[2])
    model.note_state()


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


def _rule(model: Any, move: Move) -> Any:
    from eqprop.kernels import blocks, chain

    f, cost = blocks.F, model.nudging_cost()
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
