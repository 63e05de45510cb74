"""What a run shows besides numbers; a tracker takes what it knows and ignores the rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True)
class Curve:
    """How one phase moved towards its equilibrium, on one batch of training samples.

    ``energy`` is the batch mean of F = E + β C, ``residual`` is ``Σ_l mean_batch ‖∂F/∂u[l]‖₂``:
    both where the phase starts and after each of its steps.
    """

    epoch: int
    step: int
    """Optimizer steps that the weights had seen."""
    phase: str
    """free or nudged."""
    energy: tuple[float, ...]
    residual: tuple[float, ...]


@dataclass(frozen=True)
class ConfusionMatrix:
    """How many samples of each class (a row) were taken for each class (a column)."""

    counts: tuple[tuple[int, ...], ...]
    classes: tuple[str, ...]
    """Their names, in the order of rows and columns."""


@dataclass(frozen=True)
class Mistake:
    """One sample that was taken for another class."""

    index: int
    """Its place in the test set."""
    target: int
    predicted: int
    probability: float
    """What the softmax of the output gives the predicted class."""
    target_probability: float
    cost: float
    """C(u[L], y), not multiplied by β."""
    picture: npt.NDArray[Any] | None = None
    """(height, width) or (height, width, 3), uint8; None where samples are no images."""


@dataclass(frozen=True)
class Mistakes:
    """The mistakes that cost most, the worst first."""

    worst: tuple[Mistake, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint of the run that is over."""

    path: Path
    alias: str
    """best or last."""
