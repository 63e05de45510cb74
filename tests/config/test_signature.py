"""The keys of a component are its constructor's parameters: types, ranges, and who takes more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
import torch
from annotated_types import Ge, Gt, Le, Lt, MinLen, Predicate
from pydantic import ValidationError
from typing_extensions import Doc

from eqprop.config.explain import describe
from eqprop.config.signature import component_type

if TYPE_CHECKING:
    from collections.abc import Callable

    from nowhere import Unknown


def even(number: int) -> bool:
    return number % 2 == 0


class Base:
    def __init__(self, size: Annotated[int, Ge(1)], rate: float = 0.5) -> None:
        pass


class Described(Base):
    def __init__(
        self,
        step: Annotated[float, Gt(0), Doc("how far")] = 0.1,
        count: Annotated[int, Ge(1), Predicate(even)] | None = None,
        kind: Literal["a", "b"] = "a",
        flag: bool = False,
        pair: tuple[float, Annotated[float, Gt(0)]] | None = None,
        names: Annotated[Sequence[str], MinLen(1)] = ("x",),
        implied: int = None,  # type: ignore[assignment]  # noqa: RUF013 - what foreign code does
        unseen: Unknown | None = None,
        function: Callable[[float], float] | None = None,
        anything=None,  # type: ignore[no-untyped-def]
        copy: int = 0,
    ) -> None:
        pass


class HandsOn(Base):
    def __init__(self, mine: int = 1, **options: Any) -> None:
        super().__init__(**options)


class HandsAllOn(HandsOn):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class TakesAnything:
    def __init__(self, known: int = 1, **rest: Any) -> None:
        pass


def function(params: Any, speed: Annotated[float, Lt(1), Le(0.5)]) -> None:
    pass


def check(constructor: Any, group: str = "dynamics", **values: Any) -> dict[str, Any]:
    kind = component_type(group, constructor)
    return kind.model_validate({"_target_": "x.Y", **values}).options()


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("step", [0.5, 1], [0, -1, True, "1", None, float("inf"), float("nan"), 10**400, [1]]),
        ("count", [2, None], [0, 3, 2.0, True, "2"]),
        ("kind", ["a", "b"], ["c", None, 1]),
        ("flag", [True, False], [0, 1, "true", None]),
        ("pair", [[0.0, 1.0], [0, 1], None], [[0, 0], [1], [0, 1, 2], ["0", 1], "01", 3]),
        ("names", [["a"], ["a", "b"]], [[], "a", [1], None]),
        ("implied", [1, None], ["x", 1.5]),
        ("unseen", [1, "x", None, {"a": [1]}], []),
        ("function", ["module.name", {"_target_": "a.b"}, None], []),
        ("anything", [1, "x", None, {"_target_": "a.b"}], []),
        ("copy", [3], ["x"]),
    ],
)
def test_a_key_takes_what_its_annotation_says(key: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert list(check(Described, **{key: value})) == [key]
    for value in bad:
        with pytest.raises(ValidationError):
            check(Described, **{key: value})


@pytest.mark.parametrize("unknown", ["stepp", "self", "size", "_target"])
def test_no_other_key(unknown: str) -> None:
    with pytest.raises(ValidationError):
        check(Described, **{unknown: 1})


@pytest.mark.parametrize("constructor", [HandsOn, HandsAllOn])
def test_keys_handed_on_are_the_base_s(constructor: Any) -> None:
    assert check(constructor, mine=2, size=3, rate=1) == {"mine": 2, "size": 3, "rate": 1.0}
    for wrong in ({"size": 0}, {"mine": "x"}, {"other": 1}):
        with pytest.raises(ValidationError):
            check(constructor, **wrong)


def test_a_parameter_without_default_is_required() -> None:
    with pytest.raises(ValidationError):
        check(Base)
    check(Base, size=1)


def test_what_takes_anything_still_checks_what_it_names() -> None:
    assert check(TakesAnything, known=2, other="x") == {"known": 2, "other": "x"}
    with pytest.raises(ValidationError):
        check(TakesAnything, known="x")


def test_what_the_runner_supplies_is_no_key() -> None:
    assert check(function, "optimizer", speed=0.1) == {"speed": 0.1}
    with pytest.raises(ValidationError):
        check(function, "optimizer", speed=0.1, params=1)
    with pytest.raises(ValidationError):
        check(function, "optimizer", speed=0.6)


@pytest.mark.parametrize(
    "name", [name for name in torch.optim.__all__ if name not in ("Optimizer", "lr_scheduler")]
)
def test_every_optimizer_of_torch_takes_its_own_defaults(name: str) -> None:
    """Beside a learning rate, which must be positive."""
    optimizer = getattr(torch.optim, name)
    if not isinstance(optimizer, type):
        pytest.skip("a module")
    values = {
        field.alias or key: list(default) if isinstance(default, tuple) else default
        for key, field in component_type("optimizer", optimizer).model_fields.items()
        if not field.is_required() and field.alias != "params"
        for default in [field.get_default(call_default_factory=True)]
    }
    assert "lr" in values
    check(optimizer, "optimizer", **values)
    with pytest.raises(ValidationError):
        check(optimizer, "optimizer", **{**values, "lr": 0})


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Annotated[float, Gt(0)], "a number > 0"),
        (Annotated[int, Ge(1)] | None, "a whole number >= 1 or null"),
        (Annotated[int, Ge(0), Lt(2**63)], "a whole number >= 0 and < 2^63"),
        (Literal["a", "b", "c"], "one of a, b, c"),
        (bool | Literal["auto"], "true, false or auto"),
        (Annotated[list[Annotated[int, Ge(1)]], MinLen(1)],
         "a list of at least 1, each a whole number >= 1"),
        (tuple[float, Annotated[float, Gt(0)]] | None, "a list [a number, a number > 0] or null"),
        (Annotated[int, Predicate(even)], "a whole number even"),
        (dict[str, Any], "a mapping"),
    ],
)  # fmt: skip
def test_words(annotation: Any, words: str) -> None:
    assert describe(annotation) == words
