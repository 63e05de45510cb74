"""A closed form counts only for the class that defines it together with what it is the form of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class ClosedForms:
    """A base class whose subclasses train by what they override, whichever method that is.

    ``closed_forms`` names each closed form and the methods that it is the closed form of. Where a
    subclass overrides one of those alone, the inherited closed form would contradict it: the
    subclass gets the generic implementation of the base class instead (autograd, or a plain loop).
    """

    closed_forms: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, sources in cls.closed_forms.items():
            if any(_overrides(cls, source, name) for source in sources):
                setattr(cls, name, generic(cls, name))


def _overrides(cls: type, source: str, name: str) -> bool:
    """Whether ``source`` is defined further down than ``name``: by a subclass, or a mixin."""
    first = next((base for base in cls.__mro__ if {source, name} & vars(base).keys()), cls)
    return source in vars(first) and name not in vars(first)


def generic(cls: type, name: str) -> Any:
    """The implementation of ``name`` that holds for every subclass: the most basic one."""
    return next(vars(base)[name] for base in reversed(cls.__mro__) if name in vars(base))


def replaced(part: ClosedForms) -> list[str]:
    """The closed forms that ``part`` does without, though one of its base classes has them."""
    cls = type(part)
    found = []
    for name in cls.closed_forms:
        basic = generic(cls, name)
        lost = any(vars(base).get(name, basic) is not basic for base in cls.__mro__)
        if lost and getattr(cls, name) is basic:
            found.append(name)
    return found
