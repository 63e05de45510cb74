"""What a person's own loop is told at once, instead of a gradient that means nothing."""

from __future__ import annotations

import pytest
import torch

import eqprop
from eqprop.estimator import (
    Backprop,
    BackpropThroughTime,
    CenteredEquilibriumPropagation,
    ContinualEP,
    DualPropagation,
    EquilibriumPropagation,
    Estimator,
    ImplicitDifferentiation,
)
from eqprop.relaxation import Euler


@pytest.mark.parametrize(
    "estimator",
    [
        EquilibriumPropagation(),
        CenteredEquilibriumPropagation(),
        ContinualEP(),
        Backprop(),
        DualPropagation(),
        BackpropThroughTime(),
        ImplicitDifferentiation(),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_an_estimate_needs_an_input(estimator: Estimator) -> None:
    model = eqprop.ConditionalGaussian([3, 4, 2], eqprop.SquaredError(), 5, ["sigmoid"] * 2)
    state, y = model.new_state(5), torch.eye(2)[[0, 1, 0, 1, 0]]
    with pytest.raises(ValueError, match="not clamped"):
        estimator.estimate(model, state, Euler(0.1, n_relax=3), model.c_energy, y)
    state.clamp(0, torch.rand(5, 3))
    estimator.estimate(model, state, Euler(0.1, n_relax=3), model.c_energy, y)


def test_what_would_divide_by_zero() -> None:
    with pytest.raises(ValueError, match="beta"):
        EquilibriumPropagation(0.0)
    with pytest.raises(ValueError, match="dt"):
        Euler(0.0)
    with pytest.raises(ValueError, match="tau"):
        Euler(0.1, tau=0.0)


def test_one_activation_s_name_is_no_list_of_them() -> None:
    with pytest.raises(TypeError, match="'sigmoid'"):
        eqprop.ConditionalGaussian([3, 4, 2], eqprop.SquaredError(), 5, "sigmoid")
