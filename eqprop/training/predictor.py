"""What a network answers: the states in which its output is read, and outputs of raw samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from eqprop.data import Dataset
from eqprop.data.draws import Draws
from eqprop.data.prepare import Normalize, Preparation
from eqprop.data.raw import Array
from eqprop.estimator import Estimator
from eqprop.network import Network, State
from eqprop.relaxation import Solver, recommended_solver
from eqprop.run.errors import ConfigError
from eqprop.training.noise import Noise

_DISTURBING = Lock()
"""Held by the thread that predicts under noise, which changes weights for as long."""


class Answering:
    """Puts batches where the network's output is read off, in states of their own.

    Args:
        estimator: says where that is; None: at the free equilibrium.
        seed: of the noise of first states, which each sample has by its place among all of them.
        noise: under which predictions are made too.
    """

    def __init__(
        self,
        network: Network,
        solver: Solver,
        estimator: Estimator | None,
        seed: int,
        noise: Noise | None = None,
    ) -> None:
        self.network, self.solver, self.estimator, self.noise = network, solver, estimator, noise
        device = next(network.parameters(), torch.empty(0)).device
        self.seed, self.generator = seed, torch.Generator(device).manual_seed(seed)
        self._state: State | None = None
        self._seen = 0

    @contextmanager
    def to(self, x: Tensor) -> Iterator[State]:
        """Within it the state, its weights held, that answers to ``x`` (batch, *shape)."""
        state = self._state
        if state is None or state.batch_size != len(x):
            state = self._state = self.network.new_state(len(x), self.generator)
        places = torch.arange(self._seen, self._seen + len(x), device=x.device)
        self._seen += len(x)
        state.draws = Draws(self.seed, 0, places).normal_
        state.clamp(0, x)
        disturbed = nullcontext() if self.noise is None else self.noise.disturbing(state)
        with disturbed, state.held():
            if self.estimator is None:
                self.solver.free_phase(self.network, state)
            else:
                self.estimator.predict(self.network, state, self.solver)
            yield state


@dataclass(frozen=True)
class Predictor:
    """Outputs of a network for raw samples; what ``model.predictor`` may be.

    Args:
        solver: what relaxes the network; None: the recommended one.
        estimator: the one that the network is trained by, if its output is read elsewhere than at
            the free equilibrium, as that of `Backprop` is.
        dataset: says how samples are padded and normalised; None: they stay as they are.
        noise: under which predictions are made.
        seed: of the noise of first states, the same in each call.
        batch_size: samples relaxed at a time.
    """

    solver: Solver | None = None
    estimator: Estimator | None = None
    dataset: Dataset | None = None
    noise: Noise | None = None
    seed: int = 0
    batch_size: int = 1000

    @torch.no_grad()
    @torch.inference_mode(False)  # energies without closed forms need autograd
    def __call__(self, network: Network, x: Tensor | Array) -> Tensor:
        """The outputs (batch, *shape) for samples (batch, *sample): see `Network.forward`."""
        like = next(network.parameters(), torch.empty(0))
        prepared = self.prepared(network, x, like)
        solver = recommended_solver(network) if self.solver is None else self.solver
        outputs = like.new_empty(len(prepared), *network.shapes[-1])
        with nullcontext() if self.noise is None else _DISTURBING:
            if self.noise is not None:
                self.noise.begin(network, self.seed)
            answering = Answering(network, solver, self.estimator, self.seed, self.noise)
            for start in range(0, len(prepared), self.batch_size):
                part = slice(start, start + self.batch_size)
                with answering.to(prepared[part]) as state, state.reading():
                    outputs[part] = state.u[-1]
        return outputs

    def prepared(self, network: Network, x: Tensor | Array, like: Tensor) -> Tensor:
        """``x`` as the input layer takes it, with the dtype and device of ``like``.

        Raises:
            ValueError: if samples of that shape or dtype do not fit the network.
        """
        if not isinstance(x, Tensor):
            array = np.asarray(x)  # of any strides and byte order, and perhaps not writable
            x = torch.as_tensor(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
        pad, normalize = (0, None) if self.dataset is None else self._of(self.dataset)
        if not x.is_floating_point() and (self.dataset is None or x.dtype != torch.uint8):
            allowed = "floating point" + ("" if self.dataset is None else ", or uint8 of 0 ... 255")
            raise ValueError(f"x is {x.dtype}: samples are {allowed}")
        wanted = network.shapes[0]
        if x.dim() < 2:
            what = f"x has the shape {tuple(x.shape)}"
            raise ValueError(f"{what}, not (batch, *sample): one sample is x[None]")
        of_channels = normalize is not None and isinstance(normalize[0], Sequence)
        pictures = as_pictures(x, wanted, pad, bool(pad or of_channels))
        try:
            prepare = Preparation(pad, normalize, pictures.shape[1:])
        except (ConfigError, ValueError) as error:
            shape = "(batch, channels, height, width)"
            raise ValueError(
                f"x has the shape {tuple(x.shape)}: the run pads or normalises pictures, which are "
                f"{shape}"
            ) from error
        given = prepare.shape
        flat = len(given) == 1 or len(wanted) == 1
        if given != wanted and not (flat and math.prod(given) == math.prod(wanted)):
            what = f"x has the shape {tuple(x.shape)}, and samples of {given}"
            raise ValueError(
                f"{what}: this network takes (batch, *sample) with samples of {wanted}"
            )
        return prepare(pictures, like.device, like.dtype).reshape(len(x), *wanted)

    @staticmethod
    def _of(dataset: Dataset) -> tuple[int, Normalize | None]:
        return dataset.pad, dataset.normalize


def as_pictures(x: Tensor, wanted: tuple[int, ...], pad: int, square: bool = False) -> Tensor:
    """``x`` (batch, *sample) with channels where samples are pictures, or can be taken for such.

    With ``square`` they are square ones, grey or in colours, where the network takes them flat.
    """
    if x.dim() == 3:
        return x.unsqueeze(1)
    for channels in (1, 3) if square and x.dim() == 2 and len(wanted) == 1 else ():
        side = math.isqrt(x.shape[1] // channels)
        sizes = channels * side**2, channels * (side + 2 * pad) ** 2
        if sizes == (x.shape[1], wanted[0]):
            return x.view(len(x), channels, side, side)
    if x.dim() == 2 and len(wanted) == 3:
        channels, height, width = wanted[0], wanted[1] - 2 * pad, wanted[2] - 2 * pad
        if x.shape[1] == channels * height * width:
            return x.view(len(x), channels, height, width)
    return x
