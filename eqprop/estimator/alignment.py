"""How a gradient lies to a reference, parameter by parameter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

PART = 1 << 16  # elements at a time: what is made of them in float64 stays in the cache


@dataclass(frozen=True)
class Alignment:
    """Sums over the elements of a gradient g and of its reference r.

    Those of several batches, or of several parameters, add up: to what the tensors one behind the
    other would give. What is not defined is NaN, and ``note`` says why.
    """

    product: float = 0.0  # Σ g r
    square: float = 0.0  # Σ g²
    reference_square: float = 0.0  # Σ r²
    error_square: float = 0.0  # Σ (g − r)²
    agreeing: float = 0.0  # elements whose sign is that of r, of those with r ≠ 0
    signed: float = 0.0  # elements with r ≠ 0

    def __add__(self, other: Alignment) -> Alignment:
        return Alignment(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def cosine(self) -> float:
        """Of the angle between both; NaN if one of them is zero."""
        return _ratio(self.product, math.sqrt(self.square) * math.sqrt(self.reference_square))

    @property
    def norm_ratio(self) -> float:
        """‖g‖ / ‖r‖; NaN if the reference is zero."""
        return _ratio(math.sqrt(self.square), math.sqrt(self.reference_square))

    @property
    def equal_signs(self) -> float:
        """Share of the elements with r ≠ 0 whose sign is the reference's."""
        return _ratio(self.agreeing, self.signed)

    @property
    def relative_error(self) -> float:
        """‖g − r‖ / ‖r‖; NaN if the reference is zero."""
        return _ratio(math.sqrt(self.error_square), math.sqrt(self.reference_square))

    @property
    def note(self) -> str | None:
        """Why a number is not defined, in words; None where all of them are."""
        if not math.isfinite(self.square + self.reference_square):
            of = "reference" if math.isfinite(self.square) else "gradient"
            return f"the {of} is not finite"
        zero = self.square == 0.0, self.reference_square == 0.0
        words = {(True, True): "both are zero", (True, False): "the gradient is zero"}
        return words.get(zero, "the reference is zero" if zero[1] else None)


@torch.no_grad()
def compare(
    names: Iterable[str], gradients: Sequence[Tensor], reference: Sequence[Tensor]
) -> dict[str, Alignment]:
    """Each parameter's alignment, by its name. The device is asked once, for all of them.

    Raises:
        ValueError: if there are not as many of each, or two shapes differ.
    """
    named = list(zip(names, gradients, reference, strict=True))
    if not named:
        return {}
    sums = torch.stack([_sums(name, g, r) for name, g, r in named]).tolist()
    return {name: Alignment(*found) for (name, _, _), found in zip(named, sums, strict=True)}


def total(alignments: Mapping[str, Alignment]) -> Alignment:
    """Of all parameters together: of the whole gradient."""
    return sum(alignments.values(), Alignment())


def metrics(alignments: Mapping[str, Alignment]) -> dict[str, float]:
    """``gradient_alignment/<parameter>``, the cosine, and ``gradient_ratio/<parameter>``.

    What is not defined is left out.
    """
    found = {}
    for name, one in alignments.items():
        found[f"gradient_alignment/{name}"] = one.cosine
        found[f"gradient_ratio/{name}"] = one.norm_ratio
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _sums(name: str, gradient: Tensor, reference: Tensor) -> Tensor:
    if gradient.shape != reference.shape:
        shapes = f"{tuple(gradient.shape)} and {tuple(reference.shape)}"
        raise ValueError(f"the gradients of {name} have the shapes {shapes}")
    both = (torch.split(tensor.flatten(), PART) for tensor in (gradient, reference))
    parts = zip(*both, strict=True)
    return torch.stack([_sums_of_part(g.double(), r.double()) for g, r in parts]).sum(0)


def _sums_of_part(g: Tensor, r: Tensor) -> Tensor:
    error, agreeing = g - r, (g.sign() * r.sign() > 0.0).sum()
    counts = agreeing.double(), r.count_nonzero().double()
    return torch.stack([g @ r, g @ g, r @ r, error @ error, *counts])


def _ratio(above: float, below: float) -> float:
    return above / below if 0.0 < below < math.inf else math.nan
