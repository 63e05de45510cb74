"""What benchmark.py compares, each built from the configuration as a run would be."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from _backprop import LOSSES, Network, fused_adam, train_step
from _common import composed
from torch import Tensor

from eqprop import ConditionalGaussian, EnergyBasedModel, SquaredError
from eqprop.cli import build
from eqprop.data import Dataset, Raw, Split, one_hot
from eqprop.network import Nudge, State
from eqprop.training.divergence_guard import DivergenceGuard
from eqprop.training.session import Session
from eqprop.training.step import Batch

INPUTS, CLASSES = 784, 10  # as MNIST has

# name -> what a run would be told on the command line. A solver that an energy cannot use is
# skipped with its reason.
SOLVERS: dict[str, list[str]] = {
    "gaussian euler": [
        "model=gaussian",
        "dynamics=euler",
        "dynamics.dt=0.1",
        "dynamics.n_relax=20",
    ],
    "gaussian newton": ["model=gaussian", "dynamics=newton"],
    "gaussian anderson": ["model=gaussian", "dynamics=anderson"],
    "hopfield euler": ["model=hopfield", "dynamics=euler_50", "dynamics.init=normal"],
    "hopfield newton": ["model=hopfield", "dynamics=newton"],
    "hopfield exact": ["model=hopfield", "dynamics=exact", "model.activation=hard_sigmoid"],
    "hopfield anderson": ["model=hopfield", "dynamics=anderson"],
}
AUTOGRAD: dict[str, list[str]] = {
    f"{energy} {path}": [
        *SOLVERS[f"{energy} euler"],
        f"model._target_=_cases.{path.capitalize()}{energy.capitalize()}",
    ]
    for path in ("autograd", "script")
    for energy in ("gaussian", "hopfield")
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

    @property
    def like(self) -> dict[str, Any]:
        """The keywords with which torch makes a tensor here."""
        return {"device": self.device, "dtype": build.DTYPES[self.dtype]}


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

    feedforward = True

    def energy(self, u: Sequence[Tensor]) -> Tensor:
        errors = [u[i + 1] - W(self.phi[i](u[i])) for i, W in enumerate(self.W)]
        return torch.stack([e.square().sum(1) for e in errors]).sum(0)


class AutogradHopfield(EnergyBasedModel):
    """The Hopfield energy by its formula alone."""

    def energy(self, u: Sequence[Tensor]) -> Tensor:
        r = [phi(layer) for phi, layer in zip(self.phi, u, strict=True)]
        own = torch.stack([layer.square().sum(1) for layer in u]).sum(0)
        joint = torch.stack([(r[i + 1] * W(r[i])).sum(1) for i, W in enumerate(self.W)]).sum(0)
        return 0.5 * own - joint


class Backward:
    """The state's gradient as scripts take it: ``backward`` through everything, weights too."""

    def gradient(self, state: State, nudge: Nudge | None = None) -> list[Tensor | None]:
        with torch.enable_grad():
            leaves = [layer.detach().requires_grad_() for layer in state.u]
            total = self.energy(leaves)  # type: ignore[attr-defined]
            if nudge is not None:
                total = total + nudge.energy(leaves[-1])
            total.sum().backward()
        free = state.free
        return [leaf.grad if layer in free else None for layer, leaf in enumerate(leaves)]


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


class Steps:
    """Training steps of what a command line trains, on the first batches of its data in turn."""

    def __init__(self, overrides: Sequence[str], batches: int = 1) -> None:
        cfg, config = composed(overrides)
        self.config = config
        self.session: Session = build.build_session(cfg, config)
        self._take_step = build.build_step(config, self.session.device)
        self._callbacks = [DivergenceGuard()]
        for callback in self._callbacks:
            callback.on_start(self.session)
        data = self.session.data
        self.batches = list(itertools.islice(data.train.batches(data.batch_size), batches))
        self._turn = itertools.cycle(self.batches)

    def step(self) -> None:
        """One training step, as the training loop takes it."""
        self._take_step(self.session, self._callbacks, Batch(*next(self._turn)))


class EP(Steps):
    """Case ``name`` of SOLVERS or AUTOGRAD, ready to train and to evaluate, with one batch.

    Raises:
        ConfigError: for an option that is not there, or that does not go with the others.
    """

    def __init__(
        self, name: str, point: Point, place: Place, samples: int = 1, extra: Sequence[str] = ()
    ) -> None:
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
        super().__init__([*overrides, *place.extra, *extra])
        compile_them = self.config.device.compile == "auto"  # as in any run whose epochs are long
        if name in SOLVERS and compile_them:
            self.session.solver.use_compiled_loops(self.session.network)

    @property
    def relaxation_steps(self) -> int:
        """Steps of both phases."""
        solver = self.session.solver
        feeds_forward = solver.feeds_forward(self.session.network)
        return solver.n_nudged + (0 if feeds_forward else solver.n_relax)

    def gradient(self) -> Tensor:
        """The estimate at the present weights, flat, in double precision."""
        session, (x, y) = self.session, self.batches[0]
        state, target = session.state(len(x)), one_hot(y, session.data.n_classes, x.dtype)
        state.clamp(0, x)
        parts = session.network, state, session.solver, session.cost, target
        found = session.estimator.estimate(*parts).gradients
        return torch.cat([g.flatten().double() for g in found])


def backprop_step(point: Point, place: Place) -> Callable[[], object]:
    """One training step with cross-entropy and fused Adam."""
    network, split = backprop_split(point, place, point.batch)
    optimizer = fused_adam(network)
    return lambda: train_step(network, LOSSES["CrossEntropy"], optimizer, split.x, split.y)


def backprop_split(point: Point, place: Place, samples: int) -> tuple[Network, Split]:
    """The network, and data for it."""
    network = Network(point.sizes, place.activation).to(**place.like)
    x = torch.randn(samples, INPUTS, **place.like)
    return network, Split(x, torch.randint(CLASSES, (samples,), device=place.device))


def floor_step(point: Point, place: Place, steps: int) -> Callable[[], object]:
    """The products that a step with ``steps`` relaxation steps cannot avoid, and nothing else.

    One forward and one weight gradient of every layer; in each relaxation step, one product
    forward and one back through every edge above the first (the input is clamped). All outputs
    exist beforehand, laid out as those of a state are.
    """
    phi = ["identity"] * len(point.sizes)
    network = ConditionalGaussian(point.sizes, SquaredError(), 1, phi).to(**place.like)
    sites = network.new_state(point.batch).sites
    weights = [edge.weight.detach() for edge in network.W]
    gradients = [torch.empty_like(W) for W in weights]
    for site in sites:
        site.u.normal_()
    upper = list(enumerate(weights))[1:]

    @torch.no_grad()
    def products() -> None:
        for i, W in enumerate(weights):
            torch.mm(sites[i].u, W.t(), out=sites[i + 1].d)
        for _ in range(steps):
            for i, W in upper:
                torch.mm(sites[i].u, W.t(), out=sites[i + 1].d)
                torch.mm(sites[i + 1].u, W, out=sites[i].p)
        for i, gradient in enumerate(gradients):
            torch.mm(sites[i + 1].u.t(), sites[i].u, out=gradient)

    return products
