"""The keys that all solvers share: their types, ranges and descriptions."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt
from typing_extensions import Doc

Init = Annotated[
    Literal["auto", "normal", "zeros", "feedforward", "previous", "per_example"],
    Doc(
        "first state of the free phase (auto: feedforward where the energy has it; previous: the "
        "last batch's state; per_example: where the sample's own last phase ended)"
    ),
]
KEPT = ("previous", "per_example")
"""The starts that need a state from an earlier batch."""
Steps = Annotated[int, Ge(1), Doc("steps or sweeps of the free phase at most")]
NudgedSteps = Annotated[
    Annotated[int, Ge(1)] | None,
    Doc("steps or sweeps of a nudged phase at most (null: as n_relax)"),
]
Tolerance = Annotated[
    float, Ge(0), Doc("stop where the residual falls below it (0: never; waits for no GPU)")
]
StepSize = Annotated[float, Gt(0), Doc("step size, in the unit of tau")]
TimeConstant = Annotated[float, Gt(0), Doc("time constant of the state, in the unit of dt")]
