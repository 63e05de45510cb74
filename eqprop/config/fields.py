"""What a value of the configuration may be; a description completes "it must be …"."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1, lt=2**31, description="a whole number >= 1 and < 2^31")]
OptionalCount = Annotated[
    Annotated[int, Field(ge=1, lt=2**31)] | None,
    Field(description="null or a whole number >= 1 and < 2^31"),
]
Positive = Annotated[float, Field(gt=0, description="a finite number > 0")]
NotNegative = Annotated[float, Field(ge=0, description="a finite number >= 0")]
Number = Annotated[float, Field(description="a finite number")]
Flag = Annotated[bool, Field(description="true or false")]
OptionalFlag = Annotated[bool | None, Field(description="true, false or null")]
AutoFlag = Annotated[bool | Literal["auto"], Field(description="auto, true or false")]
OptionalText = Annotated[str | None, Field(description="null or text (a number in quotes)")]
OptionalRun = Annotated[
    Annotated[str, Field(min_length=1)] | None, Field(description="null or a run's folder")
]
OptionalThreads = Annotated[
    Annotated[int, Field(ge=1, le=1024)] | None,
    Field(description="null or a whole number from 1 to 1024"),
]
Path = Annotated[
    str, Field(min_length=1, pattern=r"^[^\x00]+$", description="a path, relative or absolute")
]
Project = Annotated[
    str,
    Field(
        pattern=r"^[^/\\#?%:\x00-\x1f]{1,128}$",
        description=r"text of 1 to 128 characters without any of /\#?%:",
    ),
]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Strict(BaseModel):
    """A part of the configuration with exactly its own keys."""

    model_config = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, frozen=True, defer_build=True
    )


class Component(Strict):
    """A part that says by `_target_` which class (or function) makes it."""

    target: str = Field(alias="_target_", description="the dotted path of a class or function")

    def options(self) -> dict[str, Any]:
        """Return the other keys that were given, which are the target's keyword arguments."""
        return self.model_dump(exclude={"target"}, exclude_unset=True)
