"""What a relaxation reports: how far it went and why it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class StopReason(Enum):
    """Why a relaxation stopped; the value reads on from the number of steps."""

    CONVERGED = "the residual fell below the tolerance"
    STEP_LIMIT = "the step limit was reached"
    NOT_FINITE = "the state is no longer finite"
    EXACT = "the feed-forward pass is the free equilibrium"
    NOTHING_FREE = "every layer is clamped"


@dataclass(frozen=True)
class Relaxation:
    """The result of one phase.

    Attributes:
        steps: steps taken.
        reason: why it stopped.
        residual: ``Σ_l mean_batch ‖∂F/∂u[l]‖₂`` where it stopped; None where nobody asked.
        energy_change: the batch mean of F(end) − F(start); None where nobody asked.
        first_residual: the residual where it started; None where nobody asked.
        layer_residuals: each free layer's part of ``residual``; empty where nobody asked.
    """

    steps: int
    reason: StopReason
    residual: float | None = None
    energy_change: float | None = None
    first_residual: float | None = None
    layer_residuals: Mapping[int, float] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{self.steps} step{'' if self.steps == 1 else 's'}: {self.reason.value}"]
        if self.residual is not None:
            parts.append(f"residual {self.residual:.3g}")
        if self.energy_change is not None:
            parts.append(f"energy change {self.energy_change:.3g}")
        return ", ".join(parts)
