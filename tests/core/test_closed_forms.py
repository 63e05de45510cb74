"""What a subclass overrides takes the closed forms of it along: the rule, class by class."""

from __future__ import annotations

import inspect

import pytest

import eqprop.data
import eqprop.estimator
import eqprop.relaxation
import eqprop.training.noise  # noqa: F401  all that has classes to look at
from eqprop.network.closed_form import ClosedForms, generic, replaced


def ours(base: type = ClosedForms) -> list[type]:
    """Every class of the package that a subclass can be made of."""
    found = []
    for cls in base.__subclasses__():
        if cls.__module__.startswith("eqprop."):
            found += [cls, *ours(cls)]
    return list(dict.fromkeys(found))


CASES = [
    (cls, source)
    for cls in ours()
    for source in dict.fromkeys(s for sources in cls.closed_forms.values() for s in sources)
    if hasattr(cls, source)
]
each_case = pytest.mark.parametrize(
    ("cls", "source"), CASES, ids=[f"{cls.__name__}-{source}" for cls, source in CASES]
)


def something(*arguments: object) -> None:
    raise NotImplementedError


def forms_of(cls: type, source: str) -> list[str]:
    """The closed forms that an override of ``source`` puts out of use."""
    return [n for n, sources in cls.closed_forms.items() if source in sources and n != source]


def test_there_are_classes_to_look_at():
    names = {cls.__name__ for cls in ours()}
    assert names >= {"Gaussian", "Hopfield", "Dense", "Sigmoid", "HardSigmoid", "SquaredError"}
    assert names >= {"CrossEntropy", "Euler", "Sweep", "Newton", "Exact", "Anderson"}


@each_case
def test_an_override_puts_the_closed_forms_of_it_out_of_use(cls, source):
    """In the subclass, in one that has it from a mixin, and in those below them."""
    mixin = type("Mixin", (), {source: something})
    for mine in (type("Mine", (cls,), {source: something}), type("Mine", (mixin, cls), {})):
        below = type("Below", (mine,), {})
        for name in forms_of(cls, source):
            for found in (mine, below):
                assert inspect.getattr_static(found, name) is generic(cls, name), name


@each_case
def test_what_is_overridden_together_counts(cls, source):
    for name in forms_of(cls, source):
        mine = type("Mine", (cls,), {source: something, name: something})
        assert getattr(mine, name) is something
        below = type("Below", (mine,), {})
        assert getattr(below, name) is something


@pytest.mark.parametrize("cls", ours())
def test_what_is_not_touched_stays(cls):
    mine = type("Mine", (cls,), {"something_else": something, "__doc__": "Mine."})
    for name in cls.closed_forms:
        assert inspect.getattr_static(mine, name, None) is inspect.getattr_static(cls, name, None)


@each_case
def test_the_closed_forms_that_are_lost_can_be_told(cls, source):
    """So that a run can say in its log why it is slower."""
    mine = type("Mine", (cls,), {source: something})
    mine.__abstractmethods__ = frozenset()
    told = replaced(mine.__new__(mine))
    for name in forms_of(cls, source):
        had = any(
            vars(base).get(name, generic(cls, name)) is not generic(cls, name)
            for base in cls.__mro__
        )
        assert (name in told) == had


@pytest.mark.parametrize("cls", ours())
def test_ours_do_without_none(cls):
    plain = type("Plain", (cls,), {})
    plain.__abstractmethods__ = frozenset()
    assert replaced(plain.__new__(plain)) == []
