"""φ, φ' and φ'' of every activation, against autograd of the plain torch function in float64."""

from __future__ import annotations

import math

import pytest
import torch
from reference import PHI, derivatives

from eqprop.network.activation import ACTIVATIONS, Activation, as_activation

NAMES = sorted(PHI)
PLAIN = {
    "sin": torch.sin,
    "cubic": lambda u: 0.3 * u + 0.1 * u**3,
    "line": lambda u: 2 * u - 1,
    "same": lambda u: u,
    "swish": lambda u: u * torch.sigmoid(u),
    "module": torch.nn.SiLU(),
}
CLIPS = [
    *(("hard_sigmoid", 0.0), ("hard_sigmoid", 1.0)),
    *(("half_hard_sigmoid", 0.0), ("half_hard_sigmoid", 2.0)),
    *(("relu6", 0.0), ("relu6", 6.0)),
]
"""Activations with kinks that may hold a state at rest."""
KNOWN = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "softplus": torch.nn.functional.softplus,
}


def grid() -> torch.Tensor:
    """From deep saturation through every kink, as a (batch, size) layer."""
    kinks = torch.tensor([0.0, 1.0, -1.0, 6.0, -0.0, 1 - 1e-12, 1e-12, 20.0, -20.0, 30.0])
    smooth = torch.linspace(-8, 8, 90)
    return torch.cat([kinks, smooth]).double().view(10, 10)


def first(activation: Activation, u: torch.Tensor) -> torch.Tensor:
    """φ'(u), as a relaxation asks for it."""
    return activation.slope_(u, activation(u), torch.full_like(u, math.nan))


def second(activation: Activation, u: torch.Tensor) -> torch.Tensor:
    """φ''(u), as a relaxation asks for it."""
    ones = torch.ones_like(u)
    out = torch.full_like(u, math.nan)
    return activation.second_pullback(ones, first(activation, u), u, activation(u), out)


def check(activation: Activation, function) -> None:
    u = grid()
    value = function(u)
    rise, bend = derivatives(function, u)
    out = torch.full_like(u, math.nan)
    r = activation.value_(u, out)  # out itself, or u where there is nothing to compute
    close = {"rtol": 1e-8, "atol": 1e-8}  # torch's softplus is a straight line from 20 on
    torch.testing.assert_close(activation(u), value, **close)
    torch.testing.assert_close(r, value, **close)
    torch.testing.assert_close(first(activation, u), rise, **close)
    torch.testing.assert_close(second(activation, u), bend, **close)
    grad, back = torch.randn_like(u), torch.full_like(u, math.nan)
    activation.pullback(grad, u, value.clone(), back)
    torch.testing.assert_close(back, rise * grad, **close)
    twice = activation.second_pullback(grad, rise * grad, u, value.clone(), torch.empty_like(u))
    torch.testing.assert_close(twice, bend * grad, **close)


def test_the_names():
    assert sorted(ACTIVATIONS) == NAMES
    assert all(isinstance(a, Activation) for a in ACTIVATIONS.values())


@pytest.mark.parametrize("name", NAMES)
def test_named_against_autograd(name):
    check(as_activation(name), PHI[name])


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_torch_functions_are_the_named_ones(name):
    check(as_activation(KNOWN[name]), PHI[name])


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_plain_functions_get_their_derivative_from_autograd(name):
    check(as_activation(PLAIN[name]), PLAIN[name])


@pytest.mark.parametrize("name", NAMES)
def test_lambda_around_a_named_function(name):
    check(as_activation(lambda u: PHI[name](u)), PHI[name])


@pytest.mark.parametrize("name", NAMES)
def test_call_is_differentiable(name):
    u = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    (by_library,) = torch.autograd.grad((as_activation(name)(u) * u).sum(), u)
    (by_torch,) = torch.autograd.grad((PHI[name](u) * u).sum(), u)
    torch.testing.assert_close(by_library, by_torch)


@pytest.mark.parametrize("name", NAMES)
def test_autograd_through_a_call_gives_the_closed_form_also_at_kinks(name):
    """So that an energy given only by its value has the dynamics of its closed form."""
    u = torch.tensor([[0.0, -0.0, 1.0, -1.0, 6.0]], dtype=torch.float64, requires_grad=True)
    activation = as_activation(name)
    (slope,) = torch.autograd.grad(activation(u).sum(), u)
    torch.testing.assert_close(slope, first(activation, u.detach()))


@pytest.mark.parametrize(
    ("name", "u", "slope"),
    [
        ("relu", 0.0, 0.0),
        ("relu", -0.0, 0.0),
        ("leaky_relu", 0.0, 0.05),
        ("leaky_relu", -3.0, 0.05),
        ("leaky_relu", 3.0, 1.0),
        ("hard_sigmoid", 0.0, 1.0),
        ("hard_sigmoid", 1.0, 1.0),
        ("hard_sigmoid", -1e-9, 0.0),
        ("hard_sigmoid", 1 + 1e-9, 0.0),
        ("relu6", 0.0, 1.0),
        ("relu6", 6.0, 1.0),
        ("relu6", -1e-9, 0.0),
        ("relu6", 6 + 1e-8, 0.0),
    ],
)
def test_slope_at_and_beside_a_kink(name, u, slope):
    u = torch.tensor([[u]], dtype=torch.float64)
    activation = as_activation(name)
    assert first(activation, u).item() == slope
    assert second(activation, u).item() == 0.0
    out = torch.empty_like(u)
    activation.pullback(torch.full_like(u, 3.0), u, activation(u), out)
    assert out.item() == pytest.approx(3 * slope)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_large_arguments_stay_finite(name, dtype):
    u = torch.tensor([[-1e4, -800.0, -90.0, 90.0, 800.0, 1e4]], dtype=dtype)
    activation = as_activation(name)
    r, back = activation(u), torch.full_like(u, math.nan)
    activation.pullback(torch.ones_like(u), u, r, back)
    for tensor in (r, first(activation, u), second(activation, u), back):
        assert tensor.dtype == dtype
        assert torch.isfinite(tensor).all()
    torch.testing.assert_close(first(activation, u), back)


def test_softplus_far_out():
    softplus = as_activation("softplus")
    u = torch.tensor([-700.0, -40.0, 40.0, 700.0], dtype=torch.float64)
    expected = torch.tensor([math.exp(-700), math.exp(-40), 40.0, 700.0], dtype=torch.float64)
    torch.testing.assert_close(softplus(u), expected, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_left_alone(name):
    u, grad = torch.randn(3, 4), torch.randn(3, 4)
    activation = as_activation(name)
    r = activation(u).clone()
    kept = [t.clone() for t in (u, grad, r)]
    activation.value_(u, torch.empty_like(u))
    activation.pullback(grad, u, r, torch.empty_like(u))
    first(activation, u)
    second(activation, u)
    for tensor, before in zip((u, grad, r), kept, strict=True):
        assert torch.equal(tensor, before)


def test_as_activation_keeps_an_activation():
    activation = as_activation("tanh")
    assert as_activation(activation) is activation


def test_unknown_name_is_named_in_the_error():
    with pytest.raises(Exception, match="sigmoyd") as caught:
        as_activation("sigmoyd")
    assert "sigmoid" in str(caught.value), "the error lists what there is"


@pytest.mark.parametrize("nonsense", [None, 3, ["tanh"]])
def test_what_is_neither_name_nor_function_is_refused(nonsense):
    with pytest.raises((TypeError, ValueError)):
        as_activation(nonsense)


@pytest.mark.parametrize("name", NAMES)
def test_pieces_and_range_are_those_of_the_function(name):
    """Where φ is given as lines, they are φ; and its range holds all that it maps to."""
    u = torch.linspace(-40, 40, 4001, dtype=torch.float64)
    value, activation = PHI[name](u), as_activation(name)
    low, high = activation.range
    assert low <= value.min()
    assert value.max() <= high
    if math.isfinite(low):
        assert value.min() == pytest.approx(low, abs=1e-9)
    if math.isfinite(high):
        assert value.max() == pytest.approx(high, abs=1e-9)
    for start, end, rise, at_zero in activation.pieces:
        inside = (u >= start) & (u <= end)
        torch.testing.assert_close(value[inside], rise * u[inside] + at_zero)
    if activation.pieces:
        starts, ends, *_ = zip(*activation.pieces, strict=True)
        assert (*starts, math.inf) == (-math.inf, *ends), "the pieces leave no gap"


@pytest.mark.parametrize("total", [-3.0, -0.5, 0.0, 0.5, 3.0, 9.0])
@pytest.mark.parametrize(("name", "kink"), CLIPS)
def test_at_a_kink_of_a_clip_the_slope_is_of_the_side_that_goes_downhill(name, kink, total):
    """Of ½u² − φ(u) · total, whose slopes on both sides of a kink are known."""
    u = torch.tensor([[kink]], dtype=torch.float64)
    inside, outside = kink - total, kink  # the slopes of the energy on both sides
    left, right = (outside, inside) if kink == 0.0 else (inside, outside)
    wanted = left if left > 0 else right if right < 0 else 0.0
    pulled = torch.full_like(u, total)
    grad = u - pulled
    as_activation(name).at_kinks_(grad, pulled, u)
    if left > 0 and right < 0:
        assert grad.item() in (left, right)
    else:
        assert grad.item() == wanted


@pytest.mark.parametrize("name", NAMES)
def test_no_step_jumps_over_a_kink_that_may_hold_a_state(name):
    """Of our activations only the clips have one. A step may end on it, and leave it."""
    values = [-0.7, 0.0, 0.4, 1.0, 1.6, 2.0, 6.0, 7.0]
    kinks = [kink for of, kink in CLIPS if of == name]
    old, new = (x.flatten() for x in torch.meshgrid(*[torch.tensor(values)] * 2, indexing="ij"))
    found = new.clone()
    as_activation(name).within_piece_(found, old)
    for start, end, got in zip(old.tolist(), new.tolist(), found.tolist(), strict=True):
        crossed = [k for k in kinks if min(start, end) < k < max(start, end)]
        if crossed:
            assert got == (crossed[0] if end > start else crossed[-1])
        else:
            assert got == pytest.approx(end)


@pytest.mark.parametrize("name", NAMES)
def test_the_inverse_and_its_integral(name):
    """φ(φ⁻¹(r)) = r, and autograd of the primitive is φ⁻¹; or a refusal that names φ."""
    activation = as_activation(name)
    low, high = activation.range
    r = torch.linspace(max(low, -3.0), min(high, 3.0), 42, dtype=torch.float64)[1:-1]
    if name == "softplus":
        for method in (activation.inverse, activation.primitive):
            with pytest.raises(ValueError, match="softplus has no inverse"):
                method(r)
        return
    torch.testing.assert_close(activation(activation.inverse(r)), r)
    ends = [end for end in (low, high) if math.isfinite(end)]  # there it is large, and finite
    leaf = torch.cat([r, r.new_tensor(ends)]).requires_grad_()
    (slope,) = torch.autograd.grad(activation.primitive(leaf).sum(), leaf)
    torch.testing.assert_close(slope, activation.inverse(leaf.detach()))
    assert slope.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_projection_is_told_from_the_rest(name):
    """φ(φ(u)) = φ(u) and slopes of 0 or 1."""
    u = torch.linspace(-8.0, 8.0, 401, dtype=torch.float64)
    r = PHI[name](u)
    slopes = r.diff() / u.diff()
    clipped = torch.allclose(PHI[name](r), r) and ((slopes < 1e-9) | (slopes > 1 - 1e-9)).all()
    assert as_activation(name).unit_slopes == bool(clipped)
