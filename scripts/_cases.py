"""What scripts/benchmark.py compares, each built from the configuration as a run would be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from _backprop import LOSSES, Network, fused_adam, train_step
from torch import Tensor

from eqprop import EnergyBasedModel
from eqprop.cli.build import DTYPES, build_training
from eqprop.config.compose import compose, validate_composed
from eqprop.connection import Dense
from eqprop.data import Dataset, Raw, Split, one_hot
from eqprop.energy.state import Buffers
from eqprop.training.loop import Training

INPUTS, CLASSES = 784, 10  # as MNIST has

# name -> what a run would be told on the command line. A solver that an energy cannot use, or that
# this version does not have, is skipped with its reason.
SOLVERS: dict[str, list[str]] = {
    "gaussian euler": ["model=gaussian", "dynamics=euler"],
    "gaussian newton": ["model=gaussian", "dynamics=newton", "dynamics.init=auto"],
    "gaussian anderson": ["model=gaussian", "dynamics=anderson", "dynamics.init=auto"],
    "hopfield euler": ["model=hopfield", "dynamics=euler_50"],
    "hopfield newton": ["model=hopfield", "dynamics=newton"],
    "hopfield exact": ["model=hopfield", "dynamics=exact", "model.activation=hard_sigmoid"],
    "hopfield anderson": ["model=hopfield", "dynamics=anderson"],
}
AUTOGRAD: dict[str, list[str]] = {
    "gaussian autograd": [*SOLVERS["gaussian euler"], "model._target_=_cases.AutogradGaussian"],
    "hopfield autograd": [*SOLVERS["hopfield euler"], "model._target_=_cases.AutogradHopfield"],
    "gaussian script": [*SOLVERS["gaussian euler"], "model._target_=_cases.ScriptGaussian"],
    "hopfield script": [*SOLVERS["hopfield euler"], "model._target_=_cases.ScriptHopfield"],
}
"""The same energies without closed forms: by autograd, and as published scripts have them."""


@dataclass(frozen=True)
class Point:
    """Sizes at which all cases are timed; ``steps`` a phase, None: each solver's own."""

    batch: int
    width: int
    depth: int
    steps: int | None = None

    @property
    def sizes(self) -> list[int]:
        return [INPUTS, *[self.width] * self.depth, CLASSES]


@dataclass(frozen=True)
class Place:
    """Where and how the cases run."""

    device: str = "cpu"
    dtype: str = "float32"
    threads: int | None = None
    activation: str = "sigmoid"
    extra: tuple[str, ...] = ()


class Synthetic(Dataset):
    """Noise of MNIST's size; the first ``batch_size`` samples are one training batch."""

    n_classes: ClassVar[int] = CLASSES

    def __init__(self, root: str, batch_size: int, samples: int = 1, **others: Any) -> None:
        super().__init__(root, batch_size, **others)
        self.samples = samples

    def read(self) -> Raw:
        noise = np.random.default_rng(0)
        train, test = (
            (noise.standard_normal((n, INPUTS), dtype=np.float32), noise.integers(CLASSES, size=n))
            for n in (self.batch_size, self.samples)
        )
        return Raw(*train, *test)


class AutogradGaussian(EnergyBasedModel):
    """The Gaussian energy by its formula alone (and its feed-forward pass, to start alike)."""

    has_feedforward = True

    def energy(self, u: Sequence[Tensor]) -> Tensor:
        errors = [u[i + 1] - W(self.phi[i](u[i])) for i, W in enumerate(self.W)]
        return torch.stack([e.square().sum(1) for e in errors]).sum(0)

    @torch.no_grad()
    def fast_init(self) -> None:
        for i, W in enumerate(self.W):
            self.u[i + 1] = W(self.phi[i](self.u[i]))


class AutogradHopfield(EnergyBasedModel):
    """The Hopfield energy by its formula alone."""

    def energy(self, u: Sequence[Tensor]) -> Tensor:
        r = [phi(layer) for phi, layer in zip(self.phi, u, strict=True)]
        own = torch.stack([layer.square().sum(1) for layer in u]).sum(0)
        joint = torch.stack([(r[i + 1] * W(r[i])).sum(1) for i, W in enumerate(self.W)]).sum(0)
        return 0.5 * own - joint


class Backward:
    """The state's gradient as scripts take it: ``backward`` through everything, weights too."""

    def state_gradient(self, u: Sequence[Tensor], out: Sequence[Tensor | None]) -> None:
        with torch.enable_grad():
            leaves = [layer.detach().requires_grad_() for layer in u]
            self.energy(leaves).sum().backward()  # type: ignore[attr-defined]
        for leaf, buffer in zip(leaves, out, strict=True):
            if buffer is not None and leaf.grad is not None:
                buffer.copy_(leaf.grad)


class ScriptGaussian(Backward, AutogradGaussian):
    """The Gaussian energy as published scripts relax it."""


class ScriptHopfield(Backward, AutogradHopfield):
    """The Hopfield energy as published scripts write it: both halves of a symmetric product."""

    def energy(self, u: Sequence[Tensor]) -> Tensor:
        r = [phi(layer) for phi, layer in zip(self.phi, u, strict=True)]
        energy = 0.5 * torch.stack([layer.square().sum(1) for layer in u]).sum(0)
        for i, W in enumerate(self.W):
            forward = torch.einsum("bj,jk,bk->b", r[i + 1], W.weight, r[i])
            backward = torch.einsum("bk,jk,bj->b", r[i], W.weight, r[i + 1])
            energy = energy - 0.5 * (forward + backward) - r[i + 1] @ W.bias
        return energy


def training_of(
    name: str, point: Point, place: Place, samples: int = 1, extra: Sequence[str] = ()
) -> Training:
    """The training that case ``name`` of SOLVERS or AUTOGRAD stands for.

    Raises:
        ConfigError: for an option that is not there, or that does not go with the others.
    """
    overrides = [
        "tracking=none",
        f"model.activation={place.activation}",
        *(SOLVERS | AUTOGRAD)[name],
        f"model.hidden=[{','.join([str(point.width)] * point.depth)}]",
        f"device.type={place.device}",
        f"device.dtype={place.dtype}",
        f"device.threads={place.threads or 'null'}",
        "dataset._target_=_cases.Synthetic",
        f"+dataset.samples={samples}",
        f"dataset.batch_size={point.batch}",
        "dataset.validation=0",
        "dataset.limit=null",
        "dataset.normalize=null",
    ]
    if point.steps is not None:
        overrides += [f"dynamics.n_relax={point.steps}", "dynamics.n_nudged=null"]
    cfg = compose([*overrides, *place.extra, *extra])
    training = build_training(cfg, validate_composed(cfg))
    if name in SOLVERS and cfg.device.compile == "auto":  # as in any run whose epochs are long
        training.solver.compile_for(training.model)
    return training


def ep_step(training: Training) -> Callable[[], object]:
    """One training step on the same batch, as ``Training.train_epoch`` takes it."""
    x, y = next(training.data.train.batches(training.data.batch_size))
    return lambda: training.update(x, y, measure=False)


def backprop_step(point: Point, place: Place) -> tuple[Network, Callable[[], object]]:
    """The network, and one training step of it with cross-entropy and fused Adam."""
    network, x, y = _network(point, place, point.batch)
    optimizer = fused_adam(list(network.parameters()))
    return network, lambda: train_step(network, LOSSES["cross_entropy"], optimizer, x, y)


def backprop_split(point: Point, place: Place, samples: int) -> tuple[Network, Split]:
    """The network with data to evaluate it on."""
    network, x, y = _network(point, place, samples)
    return network, Split(x, y)


def _network(point: Point, place: Place, samples: int) -> tuple[Network, Tensor, Tensor]:
    dtype = DTYPES[place.dtype]
    network = Network(point.sizes, place.activation).to(place.device, dtype)
    x = torch.randn(samples, INPUTS, device=place.device, dtype=dtype)
    return network, x, torch.randint(CLASSES, (samples,), device=place.device)


def floor_step(point: Point, place: Place, steps: int) -> Callable[[], object]:
    """The products that a step with ``steps`` relaxation steps cannot avoid, and nothing else.

    One forward and one weight gradient of every layer; in each relaxation step, one product
    forward and one back through every connection above the first (the input is clamped). All
    outputs exist beforehand.
    """
    sizes, like = point.sizes, torch.empty(0, dtype=DTYPES[place.dtype], device=place.device)
    weights = [Dense(a, b).to(like).weight.detach() for a, b in pairwise(sizes)]
    gradients = [torch.empty_like(W) for W in weights]
    buffers = Buffers([(n,) for n in sizes], point.batch, like)
    rate, drive, back = (buffers(name) for name in ("rate", "drive", "back"))
    for layer in (*rate, *back):
        layer.normal_()
    upper = list(enumerate(weights))[1:]

    @torch.no_grad()
    def products() -> None:
        for i, W in enumerate(weights):
            torch.mm(rate[i], W.t(), out=drive[i + 1])
        for _ in range(steps):
            for i, W in upper:
                torch.mm(rate[i], W.t(), out=drive[i + 1])
                torch.mm(rate[i + 1], W, out=back[i])
        for i, gradient in enumerate(gradients):
            torch.mm(rate[i + 1].t(), rate[i], out=gradient)

    return products


def gradient_difference(a: Training, b: Training) -> float:
    """‖g_a − g_b‖ / ‖g_b‖ of two freshly built trainings' first gradients, over all parameters."""
    first, second = (_first_gradient(training) for training in (a, b))
    return float((first - second).norm() / second.norm())


def _first_gradient(training: Training) -> Tensor:
    x, y = next(training.data.train.batches(training.data.batch_size))
    training.model.resize(len(x))
    training.model.clamp_layer(0, x)
    target = one_hot(y, training.data.n_classes, x.dtype)
    estimate = training.estimator.estimate(training.model, training.solver, target)
    return torch.cat([g.flatten().double() for g in estimate.gradients])
