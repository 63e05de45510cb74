"""Clamping at any index: what is held never moves, what is released does, backwards as well."""

from __future__ import annotations

import pytest
import torch
from reference import ENERGIES

from eqprop.relaxation import Euler

SIZES, BATCH = [5, 7, 6, 4], 3
each_kind = pytest.mark.parametrize("kind", sorted(ENERGIES))


@pytest.fixture
def free(pair):
    """make(kind, phi) -> (model with every layer released, its reference)."""

    def make(kind, phi="tanh", sizes=SIZES, batch=BATCH):
        model, ref = pair(kind, sizes, batch, phi, beta=0.5)
        model.release_layer(0)
        return model, ref

    return make


@each_kind
@pytest.mark.parametrize(
    "clamped", [(), (0,), (1,), (2,), (3,), (0, 3), (1, 2), (0, 2), (1, 3), (0, 1, 2), (0, 1, 2, 3)]
)
@pytest.mark.parametrize("nudged", [False, True])
def test_only_what_is_not_clamped_moves(kind, clamped, nudged, free, state, targets):
    """Every set of clamped layers, against the reference that moves only the others."""
    model, ref = free(kind)
    values = {i: torch.randn(BATCH, SIZES[i], dtype=torch.float64) for i in clamped}
    for i, value in values.items():
        model.clamp_layer(i, value)
    assert [bool(c) for c in model.clamp_du] == [i in clamped for i in range(4)]
    y = targets(BATCH, SIZES[-1]) if nudged else None
    model.set_C_target(y)
    before = state(model)
    run = ref.relax(before, 25, 0.1, y=y, beta=0.5, clamped=clamped)
    change = model.u_relax(0.1, 25, 0.0, 1.0)
    for i in range(4):
        torch.testing.assert_close(model.u[i], run.u[i])
        assert torch.equal(model.u[i], before[i]) == (i in clamped)
    torch.testing.assert_close(model.E, ref.total(run.u, y, 0.5))
    expected = (ref.total(run.u, y, 0.5) - ref.total(before, y, 0.5)).sum()
    assert change == pytest.approx(float(expected), abs=1e-12)
    again = ref.relax(run.u, 1, 0.1, y=y, beta=0.5, clamped=clamped)
    assert model.u_step(0.1, 1.0) == pytest.approx(again.residuals[0])


@each_kind
@pytest.mark.parametrize("i", range(4))
def test_clamp_release_and_clamp_again(kind, i, free, state):
    """Three phases in a row on one model; contributions kept while clamped are not kept after."""
    model, ref = free(kind)
    u = state(model)
    for clamped in ((i,), (), (i,)):
        if clamped:
            u[i] = torch.randn(BATCH, SIZES[i], dtype=torch.float64)
            model.clamp_layer(i, u[i])
        else:
            model.release_layer(i)
        u = ref.relax(u, 10, 0.1, clamped=clamped).u
        Euler(0.1).relax(model, model.state, None, 10)
        for actual, expected in zip(state(model), u, strict=True):
            torch.testing.assert_close(actual, expected)


@each_kind
@pytest.mark.parametrize("i", range(4))
def test_the_callers_tensor_is_not_kept(kind, i, free):
    model, _ = free(kind)
    x = torch.randn(BATCH, SIZES[i], dtype=torch.float64)
    kept = x.clone()
    model.clamp_layer(i, x)
    model.release_layer(i)
    model.u_relax(0.1, 5, 0.0, 1.0)
    assert torch.equal(x, kept), "the relaxation wrote into the caller's input"
    assert not torch.equal(model.u[i], kept)
    model.clamp_layer(i, x)
    x.zero_()
    assert torch.equal(model.u[i], kept), "the state followed the caller's tensor"


@each_kind
@pytest.mark.parametrize("i", range(4))
def test_assigning_a_layer_copies(kind, i, free, state):
    model, ref = free(kind)
    new = torch.randn(BATCH, SIZES[i], dtype=torch.float64)
    kept = new.clone()
    model.u[i] = new
    model.u_relax(0.1, 3, 0.0, 1.0)
    assert torch.equal(new, kept)
    new.zero_()
    torch.testing.assert_close(model.E, ref.energy(state(model)))
    assert model.u[i].any()


@pytest.mark.estimators
@each_kind
@pytest.mark.parametrize("phi", ["tanh", "sigmoid", "relu"])
def test_backwards(kind, phi, free, state):
    """Output clamped, input released: the input settles where the reference's does."""
    model, ref = free(kind, phi)
    model.clamp_layer(3, torch.randn(BATCH, 4, dtype=torch.float64))
    before = state(model)
    run = ref.relax(before, 300, 0.1, clamped=(3,))
    model.u_relax(0.1, 300, 0.0, 1.0)
    for actual, expected in zip(state(model), run.u, strict=True):
        torch.testing.assert_close(actual, expected)
    assert not torch.equal(model.u[0], before[0])
    assert run.residuals[-1] < 0.1 * run.residuals[0]


@pytest.mark.estimators
def test_linear_gaussian_backwards_is_least_squares(free):
    """‖u₁ − W₀u₀ − b₀‖² + ‖y − W₁u₁ − b₁‖² in (u₀, u₁): one linear system, solved outright."""
    model, ref = free("gaussian", "identity", sizes=[3, 5, 4], batch=2)
    y = torch.randn(2, 4, dtype=torch.float64)
    W0 = torch.linalg.qr(torch.randn(5, 3, dtype=torch.float64)).Q
    W1 = torch.linalg.qr(torch.randn(5, 4, dtype=torch.float64)).Q.T
    with torch.no_grad():
        model.W[0].weight.copy_(W0)
        model.W[1].weight.copy_(W1)
    (b0, b1), eye = ref.b, torch.eye(5, dtype=torch.float64)
    top = torch.cat([-W0, eye], 1)
    bottom = torch.cat([torch.zeros(4, 3, dtype=torch.float64), W1], 1)
    A, c = torch.cat([top, bottom]), torch.cat([b0.expand(2, 5), y - b1], 1)
    solution = torch.linalg.lstsq(A, c.T).solution.T
    model.clamp_layer(2, y)
    model.u_relax(0.2, 6000, 0.0, 1.0)
    torch.testing.assert_close(model.u[0], solution[:, :3], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(model.u[1], solution[:, 3:], rtol=1e-6, atol=1e-6)
    assert torch.equal(model.u[2], y)


@each_kind
@pytest.mark.parametrize("i", range(4))
@pytest.mark.parametrize("shape", [(BATCH,), (BATCH, 99), (BATCH + 1, None), (1, None)])
def test_a_wrong_shape_names_both_shapes(kind, i, shape, free):
    model, _ = free(kind)
    shape = tuple(SIZES[i] if n is None else n for n in shape)
    with pytest.raises(ValueError, match="shape") as caught:
        model.clamp_layer(i, torch.zeros(shape))
    assert str(shape) in str(caught.value)
    assert str((BATCH, SIZES[i])) in str(caught.value)
    assert not model.clamp_du[i], "a refused clamp leaves the layer as it was"
    with pytest.raises(ValueError, match="shape"):
        model.u[i] = torch.zeros(shape)


@each_kind
def test_a_layer_that_is_not_there(kind, free):
    model, _ = free(kind)
    with pytest.raises(IndexError):
        model.clamp_layer(4, torch.zeros(BATCH, 4))
    with pytest.raises(IndexError):
        model.release_layer(4)


@each_kind
@pytest.mark.parametrize("clamped", [(0,), (2,), (1, 3)])
@pytest.mark.parametrize("init", ["auto", "normal", "zeros"])
def test_initialisation_respects_clamping(kind, clamped, init, free, state):
    model, _ = free(kind)
    for i in clamped:
        model.clamp_layer(i, torch.randn(BATCH, SIZES[i], dtype=torch.float64))
    before = state(model)
    Euler(init=init).initialise(model, model.state)
    for i in range(4):
        if i in clamped:
            assert torch.equal(model.u[i], before[i])
    model.reset_state()
    assert all(torch.equal(model.u[i], before[i]) for i in clamped)


@each_kind
def test_conversion_to_another_precision(kind, pair, state):
    """double() takes the state, what is clamped and the dynamics along."""
    model, ref = pair(kind, SIZES, BATCH, "tanh", dtype=torch.float32)
    model.u_relax(0.1, 2, 0.0, 1.0)
    before = state(model)
    model.double()
    assert all(model.u[i].dtype == torch.float64 for i in range(4))
    assert model.E.dtype == torch.float64
    assert [bool(c) for c in model.clamp_du] == [True, False, False, False]
    for actual, expected in zip(state(model), before, strict=True):
        assert torch.equal(actual, expected)
    run = ref.relax(before, 20, 0.1)
    model.u_relax(0.1, 20, 0.0, 1.0)
    for actual, expected in zip(state(model), run.u, strict=True):
        torch.testing.assert_close(actual, expected)


@each_kind
def test_state_is_the_same_inside_inference_mode(kind, pair, state):
    """Evaluation often runs so."""
    model, ref = pair(kind, SIZES, BATCH, "tanh")
    with torch.inference_mode():
        for _ in range(2):
            x = torch.randn(BATCH, SIZES[0], dtype=torch.float64)
            model.clamp_layer(0, x)
            run = ref_relax(ref, state(model))
            model.u_relax(0.1, 5, 0.0, 1.0)
            for actual, expected in zip(state(model), run, strict=True):
                torch.testing.assert_close(actual, expected)


def ref_relax(ref, u):
    with torch.inference_mode(False):
        return ref.relax([layer.clone() for layer in u], 5, 0.1).u
