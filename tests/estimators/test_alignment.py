"""Cosine, ratio of norms, share of equal signs and relative error, by closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from eqprop.estimator.alignment import PART, Alignment, compare, metrics, total


def one(gradient: list[float], reference: list[float], **how: object) -> Alignment:
    both = torch.tensor(gradient, **how), torch.tensor(reference, **how)
    return compare(["w"], [both[0]], [both[1]])["w"]


def test_a_right_angled_triangle() -> None:
    found = one([3.0, 4.0], [3.0, 0.0])
    assert found.cosine == pytest.approx(0.6)
    assert found.norm_ratio == pytest.approx(5 / 3)
    assert found.relative_error == pytest.approx(4 / 3)
    assert found.note is None


@pytest.mark.parametrize("factor", [0.5, 1.0, -2.0])
def test_a_multiple(factor: float) -> None:
    reference = torch.randn(5, 7)
    found = compare(["w"], [factor * reference], [reference])["w"]
    assert found.cosine == pytest.approx(math.copysign(1, factor))
    assert found.norm_ratio == pytest.approx(abs(factor))
    assert found.relative_error == pytest.approx(abs(factor - 1), abs=1e-7)
    assert found.equal_signs == (factor > 0)


def test_signs_count_where_the_reference_has_one() -> None:
    assert one([1.0, -2.0, 0.0, 0.0, 5.0], [2.0, 2.0, 1.0, 1.0, 0.0]).equal_signs == 1 / 4


@pytest.mark.parametrize(
    ("gradient", "reference", "note"),
    [
        (0.0, 0.0, "both are zero"),
        (0.0, 1.0, "the gradient is zero"),
        (1.0, 0.0, "the reference is zero"),
        (math.nan, 1.0, "the gradient is not finite"),
        (1.0, math.inf, "the reference is not finite"),
    ],
)
def test_what_is_not_defined_is_said_in_words(gradient: float, reference: float, note: str) -> None:
    found = one([gradient] * 3, [reference] * 3)
    assert found.note == note
    assert math.isnan(found.cosine)
    assert math.isnan(found.relative_error) or reference == 1.0
    numbers = metrics({"w": found})
    assert all(map(math.isfinite, numbers.values()))
    assert numbers.keys() == ({"gradient_ratio/w"} if note == "the gradient is zero" else set())


@pytest.mark.parametrize("n", [40, PART - 7])
def test_batches_add_up_to_the_tensors_one_behind_the_other(n: int) -> None:
    ours, theirs = torch.randn(2, 3, n, dtype=torch.float64)
    parts = [compare(["w"], [a], [b])["w"] for a, b in zip(ours, theirs, strict=True)]
    whole = compare(["w"], [ours], [theirs])["w"]
    found = sum(parts, Alignment())
    for name in ("cosine", "norm_ratio", "equal_signs", "relative_error"):
        assert getattr(found, name) == pytest.approx(getattr(whole, name)), name


def test_parameters_keep_their_names_and_add_up_to_the_gradient() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    names = [name for name, _ in network.named_parameters()]
    ours = [torch.randn_like(p) for p in network.parameters()]
    theirs = [torch.randn_like(p) for p in network.parameters()]
    found = compare(names, ours, theirs)
    assert list(found) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    g, r = (torch.cat([t.flatten() for t in tensors]) for tensors in (ours, theirs))
    assert total(found).cosine == pytest.approx(float(torch.cosine_similarity(g, r, 0)), abs=1e-6)
    assert total(found).relative_error == pytest.approx(float((g - r).norm() / r.norm()))
    cosines = {f"gradient_alignment/{name}" for name in names}
    assert metrics(found).keys() == cosines | {f"gradient_ratio/{name}" for name in names}


def test_small_differences_of_float32_are_not_rounded_away() -> None:
    found = one([1.0, 1.0 + 2**-23], [1.0, 1.0])
    assert found.relative_error == pytest.approx(2**-23 / math.sqrt(2))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        compare(["w"], [torch.ones(3)], [torch.ones(4)])
    with pytest.raises(ValueError, match="zip"):
        compare(["w"], [torch.ones(3)], [])
    assert compare([], [], []) == {}
