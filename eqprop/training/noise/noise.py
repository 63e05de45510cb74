"""The seam for noise: what it may disturb, and the weights that phases see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from eqprop.estimator import Estimate, Estimator
from eqprop.estimator.estimator import Update
from eqprop.network import Cost, Disturbance, Network, State
from eqprop.relaxation import Solver
from eqprop.run.errors import RunError


class Noise(Disturbance):
    """The seam: a training step's gradient is estimated while this disturbs state and weights.

    A new one overrides the methods of `Disturbance`, ``begin_batch`` or ``apply``.

    Attributes:
        evaluated: whether predictions are made under it as well: then it may draw nothing.
        refused: estimators with phases that it would not disturb, or not as it says.
        capturable: whether all its numbers lie on the device: a class says so for itself only.
    """

    evaluated = False
    refused: tuple[type[Estimator], ...] = ()
    capturable: ClassVar = False

    network: Network
    weights: SeenWeights
    _met: bool  # whether anything of a batch has been disturbed

    def begin(self, network: Network, seed: int) -> None:
        """Before a run begins, or goes on."""
        self.network = network
        self.weights = SeenWeights(network)
        self._met = True

    def begin_batch(self, state: State) -> None:
        """Before the phases of a batch."""

    def end_batch(self, state: State, found: Estimate) -> None:
        """After them, when the weights are again those that learn."""

    def apply(self, gradients: list[Tensor], update: Update, state: State) -> None:
        """Move the weights that learn, in the middle of an estimate."""
        with self.weights.lifted():
            update(gradients)

    @contextmanager
    def disturbing(self, state: State) -> Iterator[None]:
        """Within it phases run, and are read, under the noise."""
        state.noise = self
        try:
            self.begin_batch(state)
            yield
        finally:
            state.noise = None
            self.weights.take_back(state)

    def estimate(
        self,
        estimator: Estimator,
        network: Network,
        state: State,
        solver: Solver,
        cost: Cost,
        target: Tensor,
        *,
        update: Update,
        measure: bool = False,
    ) -> Estimate:
        """The estimator's, under the noise. Raises RunError if that does not meet the noise."""

        def moved(gradients: list[Tensor]) -> None:
            self.apply(gradients, update, state)

        if isinstance(estimator, self.refused):
            raise RunError(f"noise ({type(self).__name__}): {_undisturbed(type(estimator))}")
        with self.disturbing(state):
            parts = network, state, solver, cost, target
            found = estimator.estimate(*parts, update=moved, measure=measure)
        if not self._met:
            what = f"{type(estimator).__name__} has no phases, or readings, that it disturbs"
            raise RunError(f"noise ({type(self).__name__}): {what}; {_INSTEAD}")
        self.end_batch(state, found)
        return found

    def capture_obstacle(self) -> str | None:
        """Why a step with this noise cannot be captured as a CUDA graph; None if it can."""
        known = vars(type(self)).get("capturable", False)
        return None if known else f"{type(self).__name__} does not say that it can be captured"


class SeenWeights:
    """The weights that phases see, in the place of those that learn, which are kept meanwhile.

    They are all parameters of the network but the biases, and feedback weights that stay fixed.
    """

    def __init__(self, network: Network) -> None:
        biases = {id(edge.bias) for edge in network.biases if edge is not None}
        back = [edge.feedback for edge in network.edges if edge.feedback is not None]
        fixed = [weight for edge in back for weight in edge.buffers()]
        self.tensors = [p for p in network.parameters() if id(p) not in biases] + fixed
        self._kept: list[Tensor] = []
        self._change: Callable[[list[Tensor]], None] | None = None  # that is in place

    @property
    def in_place(self) -> bool:
        """Whether it is these that the network has now."""
        return self._change is not None

    @torch.no_grad()
    def put(self, change: Callable[[list[Tensor]], None], state: State | None = None) -> None:
        """Have ``change`` write into the weights; what a state knew of them is forgotten."""
        self.take_back()
        self._kept = self._kept or [torch.empty_like(weight) for weight in self.tensors]
        for kept, weight in zip(self._kept, self.tensors, strict=True):
            kept.copy_(weight)
        self._change = change  # first: what is half done can be taken back
        change(self.tensors)
        if state is not None:
            state.forget()

    @torch.no_grad()
    def take_back(self, state: State | None = None) -> None:
        """Put back the weights that learn, bit for bit, where others are in their place."""
        if self._change is None:
            return
        for kept, weight in zip(self._kept, self.tensors, strict=True):
            weight.copy_(kept)
        self._change = None
        if state is not None:
            state.forget()

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Within it the weights are those that learn; then the same change is made again."""
        change = self._change
        self.take_back()
        yield
        if change is not None:
            self.put(change)


_INSTEAD = "choose noise=weights, noise=gradient or another estimator"


def needs_phases(config: Any, key: str, refused: tuple[type[Estimator], ...] = ()) -> None:
    """Refuse, for ``key``, an estimator without phases, or one of ``refused``.

    Raises:
        ValueError: one line.
    """
    estimator = config.estimator.constructor
    if not getattr(estimator, "relaxes", True):
        why = f"{estimator.__name__} relaxes no phases that it could disturb"
        raise ValueError(f"{key}: {why}; {_INSTEAD}")
    if isinstance(estimator, type) and issubclass(estimator, refused):
        raise ValueError(f"{key}: {_undisturbed(estimator)}")


def _undisturbed(estimator: type[Estimator]) -> str:
    return f"{estimator.__name__} has phases that it cannot disturb; {_INSTEAD}"
