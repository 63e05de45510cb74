"""When a phase runs as one compiled loop."""

from __future__ import annotations

import importlib
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any

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
from eqprop.relaxation.loops import Move, relax

log = logging.getLogger(__name__)

PAYS = 1e8
"""Moves of a unit in an epoch from which on compiling pays: they save 0.1 s or more an epoch, and
compiling takes about 10 s, once on a machine."""

SLOW = 1.0  # seconds from which on a person wants to know what took them


def fits(model: EnergyBasedModel) -> bool:
    """Whether there is a loop for ``model`` while its input alone is clamped.

    There is for one hidden layer between input and a narrow output, in float32 on the CPU, where
    φ has an exponential (else plain passes are cheap), and for no class but our own.
    """
    return (
        type(model) in (ConditionalGaussian, RestrictedHopfield)
        and model.n_layers == 3
        and model.dimensions[-1] <= NARROW
        and type(model.phi[1]) in (Sigmoid, Tanh)
        and type(model.phi[2]) in (Sigmoid, Tanh, Identity)
        and type(model.c_energy) in (SquaredError, CrossEntropy)
        and all(type(connection) is Dense for connection in model.W)
        and (weight := model.W[0].weight).dtype is torch.float32
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
