"""φ, φ' and φ'' of every activation, against autograd of the plain torch function in float64."""

from __future__ import annotations

import math

import pytest
import torch
from reference import PHI, derivatives

from eqprop.activation import ACTIVATIONS, Activation, as_activation

NAMES = sorted(PHI)
PLAIN = {
    "sin": torch.sin,
    "cubic": lambda u: 0.3 * u + 0.1 * u**3,
    "line": lambda u: 2 * u - 1,
    "same": lambda u: u,
    "swish": lambda u: u * torch.sigmoid(u),
    "module": torch.nn.SiLU(),
}
KNOWN = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "softplus": torch.nn.functional.softplus,
}


def grid() -> torch.Tensor:
    """From deep saturation through every kink, as a (batch, size) layer."""
    kinks = torch.tensor([0.0, 1.0, -1.0, 0.5, -0.0, 1 - 1e-12, 1e-12, 20.0, -20.0, 30.0])
    smooth = torch.linspace(-8, 8, 90)
    return torch.cat([kinks, smooth]).double().view(10, 10)


def check(activation: Activation, function) -> None:
    u = grid()
    value = function(u)
    first, second = derivatives(function, u)
    out = torch.full_like(u, math.nan)
    r = activation.value_(u, out)  # out itself, or u where there is nothing to compute
    close = {"rtol": 1e-8, "atol": 1e-8}  # torch's softplus is a straight line from 20 on
    torch.testing.assert_close(activation(u), value, **close)
    torch.testing.assert_close(r, value, **close)
    torch.testing.assert_close(activation.derivative(u), first, **close)
    torch.testing.assert_close(activation.second_derivative(u), second, **close)
    grad, back = torch.randn_like(u), torch.full_like(u, math.nan)
    activation.pullback(grad, u, value.clone(), back)
    torch.testing.assert_close(back, first * grad, **close)


def test_the_seven_names():
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
    u = torch.tensor([[0.0, -0.0, 1.0, -1.0]], dtype=torch.float64, requires_grad=True)
    activation = as_activation(name)
    (slope,) = torch.autograd.grad(activation(u).sum(), u)
    torch.testing.assert_close(slope, activation.derivative(u.detach()))


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
    ],
)
def test_slope_at_and_beside_a_kink(name, u, slope):
    u = torch.tensor([[u]], dtype=torch.float64)
    activation = as_activation(name)
    assert activation.derivative(u).item() == slope
    assert activation.second_derivative(u).item() == 0.0
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
    for tensor in (r, activation.derivative(u), activation.second_derivative(u), back):
        assert tensor.dtype == dtype
        assert torch.isfinite(tensor).all()
    torch.testing.assert_close(activation.derivative(u), back)


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
    activation.derivative(u)
    activation.second_derivative(u)
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
