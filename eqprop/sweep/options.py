"""The type of the configuration's part ``sweep``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from eqprop.config.fields import Count, Flag, OptionalCount, Strict


class Sweep(Strict):
    """How a multirun chooses, repeats and ends its jobs."""

    sampler: Literal["grid", "tpe", "random"] = "grid"
    n_trials: OptionalCount = None
    repeats: Count = 1
    jobs: Count = 1
    job_timeout: Annotated[
        Annotated[float, Field(gt=0)] | None,
        Field(description="null or a finite number of seconds > 0"),
    ] = None
    pruner: Annotated[
        Literal["median", "halving", "hyperband"] | None,
        Field(description="null, median, halving or hyperband"),
    ] = None
    seed: Annotated[int, Field(ge=0, lt=2**32, description="a whole number from 0 to 2^32 - 1")] = 0
    max_failures: OptionalCount = None
    retry: Flag = False

    def contradiction(self) -> str | None:
        """One line on keys that do not go together, else None."""
        if self.sampler == "grid":
            if self.pruner is not None:
                return f"sweep.pruner={self.pruner}: a grid completes every point; use sweep=tpe"
            return None
        if self.n_trials is None:
            return f"sweep.n_trials=null: sweep.sampler={self.sampler} needs a whole number >= 1"
        if self.retry:
            return "sweep.retry=true: for a grid; a search tries others, up to sweep.max_failures"
        return None
