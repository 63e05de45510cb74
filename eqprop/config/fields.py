"""What the typed parts of the configuration share: strictness, and the most common value types."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge, Gt, MinLen
from pydantic import BaseModel, ConfigDict, Field

from eqprop.config.targets import locate

Count = Annotated[int, Ge(1)]
OptionalCount = Count | None
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
OptionalText = Annotated[str | None, Field(description="text (a number in quotes) or null")]
OptionalRun = Annotated[
    Annotated[str, MinLen(1)] | None, Field(description="a run's folder or null")
]
Path = Annotated[str, MinLen(1), Field(pattern=r"^[^\x00]*$", description="a path")]
NotNegativeCount = Annotated[int, Ge(0)]
OptionalPositive = Positive | None
Text = Annotated[str, MinLen(1)]
Texts = list[str]
Mapping = dict[str, Any]


class Strict(BaseModel):
    """A part of the configuration with exactly its own keys.

    Text is no number, true is no number, and numbers are finite; a whole number may stand where a
    float is asked for.
    """

    model_config = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, frozen=True, defer_build=True
    )


class Component(Strict):
    """A part whose `_target_` says which class (or function) makes it from the other keys."""

    target: str = Field(alias="_target_")

    @property
    def constructor(self) -> Any:
        """The class or function that `_target_` names."""
        return locate(self.target)

    def options(self) -> dict[str, Any]:
        """Return the other keys that were given."""
        return self.model_dump(exclude={"target"}, exclude_unset=True, by_alias=True)
