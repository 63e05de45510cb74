"""The type of the configuration's part ``sweep``."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from eqprop.config.fields import Count, OptionalCount, Strict


class Sweep(Strict):
    """How a multirun chooses, repeats and ends its jobs."""

    sampler: Literal["grid", "tpe", "random"] = "grid"
    n_trials: OptionalCount = None
    repeats: Count = 1
    jobs: Count = 1
    job_timeout: Annotated[float, Gt(0)] | None = None
    pruner: Literal["median", "halving", "hyperband"] | None = None
    seed: Annotated[int, Ge(0), Lt(2**32)] = 0
    max_failures: OptionalCount = None
    retry: bool = False

    @property
    def searches(self) -> bool:
        """Whether a sampler proposes the points, rather than the grid."""
        return self.sampler != "grid"

    def contradiction(self) -> str | None:
        """One line on keys that do not go together, else None."""
        if not self.searches:
            if self.pruner is not None:
                return f"sweep.pruner={self.pruner}: a grid completes every point; use sweep=tpe"
            return None
        if self.n_trials is None:
            return f"sweep.n_trials=null: sweep.sampler={self.sampler} needs a whole number >= 1"
        if self.retry:
            return "sweep.retry=true: for a grid; a search tries others, up to sweep.max_failures"
        return None
