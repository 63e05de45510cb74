"""Edges, alone and under every energy: against autograd, torch's own layers, and adjoints."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from networks import (
    COSTS,
    LOCALS,
    assert_by_autograd,
    assert_close_lists,
    curvature_by_autograd,
    graph,
    jacobian,
    random_nudge,
    random_state,
    weight_gradient,
)

from eqprop.network import Conv, Dense, Identity
from eqprop.relaxation import Newton

PICTURE = (2, 3, 5)
EDGES = {
    "dense": partial(Dense, units=4),
    "conv": partial(Conv, channels=3),
    "even kernel": partial(Conv, channels=3, kernel=2, padding=1),
    "stride": partial(Conv, channels=3, kernel=3, stride=2, padding=1),
    "a column left over": partial(Conv, channels=2, kernel=2, stride=3),
    "wide padding": partial(Conv, channels=1, kernel=2, padding=2, bias=False),
    "strided 1 x 1": partial(Conv, channels=3, kernel=1, stride=2, bias=False),
    "max": partial(Conv, channels=3, kernel=2, pool="max"),
    "max, stride": partial(Conv, channels=3, kernel=2, stride=3, padding=1, pool="max"),
    "max of 3 x 3": partial(Conv, channels=2, stride=3, padding=3, pool="max", pool_size=3),
    "average": partial(Conv, channels=2, kernel=2, padding=1, pool="average"),
    "soft": partial(Conv, channels=2, kernel=2, padding=1, pool="soft"),
    "identity": Identity,
}
each_edge = pytest.mark.parametrize("name", EDGES)
each_kind = pytest.mark.parametrize("kind", sorted(LOCALS))
each_format = pytest.mark.parametrize("channels_last", [False, True], ids=["", "channels_last"])


@torch.no_grad()
def make(name):
    """The edge in float64, a rate that it has driven with, and what it then remembers."""
    edge = EDGES[name](PICTURE).double()
    r = torch.randn(2, *edge.in_shape, dtype=torch.float64)
    out, memory = torch.empty(2, *edge.out_shape, dtype=torch.float64), {}
    edge.drive(r, out, None, memory)
    return edge, r, out, memory


def windows(x, size):
    """The pixels of each window, last."""
    return x.unfold(2, size, size).unfold(3, size, size).flatten(4)


POOLS = {
    "max": lambda x, size: F.max_pool2d(x, size),
    "average": lambda x, size: F.avg_pool2d(x, size),
    "soft": lambda x, size: (
        (windows(x, size) * windows(x, size).exp()).sum(-1) / windows(x, size).exp().sum(-1)
    ),
    None: lambda x, size: x,
}


# ---------------------------------------------------------------------- alone


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"), [(2, 1, 1, 2), (2, 3, 1, 1), (3, 3, 3, 3)]
)
def test_a_convolution_is_torch_s(pool, kernel, stride, padding, size):
    """With a pool behind it, which the bias may stand in front of; and with the same start."""
    torch.manual_seed(3)
    plain = torch.nn.Conv2d(2, 3, kernel, stride, padding)
    torch.manual_seed(3)
    edge = Conv(PICTURE, 3, kernel, stride, padding, pool, size)
    assert_close_lists([edge.weight, edge.bias], [plain.weight, plain.bias], rtol=0, atol=0)
    r = torch.randn(4, *PICTURE)
    product = plain(r) if pool is None else POOLS[pool](plain(r), size)
    assert edge.out_shape == tuple(product.shape[1:])
    torch.testing.assert_close(edge(r), product)


@each_edge
@torch.no_grad()
def test_a_drive_is_the_function_with_what_is_added(name):
    edge, r, out, memory = make(name)
    product = edge.forward(r)
    torch.testing.assert_close(out, product)
    for add in (torch.randn(edge.out_shape[0], *[1] * (out.dim() - 2)).double(), out):
        wanted = product + add
        edge.drive(r, out, add, memory)
        torch.testing.assert_close(out, wanted)


@each_edge
@torch.no_grad()
def test_a_pull_is_the_adjoint_of_the_derivative(name):
    """⟨DK v, σ⟩ = ⟨v, DKᵀ σ⟩, and DK = K where K is linear."""
    edge, r, out, memory = make(name)
    v, signal = torch.randn_like(r), torch.randn_like(out)
    along = torch.einsum("boi,bi->bo", jacobian(edge, r), v.flatten(1)).view_as(out)
    if edge.linear:
        torch.testing.assert_close(along, edge.forward(v))
    back = torch.full_like(r, torch.nan)
    edge.pull(r, signal, back, None, memory)
    torch.testing.assert_close((back * v).sum(), (along * signal).sum())
    for add in (torch.randn_like(r), back):
        wanted = back + add
        edge.pull(r, signal, back, add, memory)
        torch.testing.assert_close(back, wanted)
        back.copy_(wanted - add)


@each_edge
@torch.no_grad()
def test_linear_says_whether_it_is(name):
    edge, r, *_ = make(name)
    v = torch.randn_like(r)
    found, sum_of_both = edge.forward(r + v), edge.forward(r) + edge.forward(v)
    assert edge.linear == torch.allclose(found, sum_of_both)


@each_edge
def test_a_weight_gradient_by_autograd(name):
    edge, r, out, memory = make(name)
    signal, weights = torch.randn_like(out), list(edge.weights())
    if not weights:
        edge.gradient(r, signal, 1.0, [], False, memory)
        return
    (wanted,) = torch.autograd.grad((edge.forward(r) * signal).sum(), weights)
    found = torch.full_like(wanted, torch.nan)
    with torch.no_grad():
        edge.gradient(r, signal, -0.3, [found], False, memory)
        torch.testing.assert_close(found, -0.3 * wanted)
        edge.gradient(r, signal, 1.3, [found], True, memory)
    torch.testing.assert_close(found, wanted)


@each_edge
@pytest.mark.parametrize("each", [False, True], ids=["one stiffness", "one a unit"])
def test_a_norm_is_the_diagonal(name, each):
    """Of DKᵀ · stiffness · DK at each sample's own rate."""
    edge, r, out, memory = make(name)
    stiffness = torch.rand_like(out) if each else torch.full_like(out, 0.7)
    with torch.no_grad():
        found = edge.squared_norm(r, stiffness if each else 0.7, memory)
    squares = jacobian(edge, r).square()
    wanted = torch.einsum("boi,bo->bi", squares, stiffness.flatten(1)).view_as(r)
    torch.testing.assert_close(found.expand_as(r), wanted)


# ---------------------------------------------------------------------- in networks

FIRST = ((0, partial(Conv, channels=2, kernel=1)),)
OUT = partial(Dense, units=3)
STRIDED = partial(Conv, channels=3, stride=2, padding=1)
NETWORKS = {name: [FIRST, ((1, edge),), ((2, OUT),)] for name, edge in EDGES.items()}
NETWORKS |= {
    "residual": [
        FIRST,
        ((1, Identity), (1, partial(Conv, channels=2, padding=1))),
        ((2, OUT),),
    ],
    "strided skip": [
        FIRST,
        ((1, partial(Conv, channels=2, padding=1)),),
        ((2, STRIDED), (1, EDGES["strided 1 x 1"])),
        ((3, OUT), (1, partial(OUT, bias=False))),
    ],
    "pools that meet": [
        FIRST,
        (
            (1, EDGES["average"]),
            (0, partial(EDGES["soft"], bias=False)),
            (0, partial(Conv, channels=2, kernel=2, padding=1, pool="max", bias=False)),
        ),
        ((2, OUT),),
    ],
}
each_network = pytest.mark.parametrize("name", NETWORKS)


def network_and_state(name, kind, channels_last=False, clamped=(0,), phi="tanh"):
    network = graph(LOCALS[kind](), phi, PICTURE, NETWORKS[name])
    if channels_last:
        network.use_channels_last()
    return network, random_state(network, 2, clamped)


@each_network
@each_kind
@each_format
def test_closed_forms_are_autograd_s(name, kind, channels_last):
    """Value, state gradient, weight gradient, and once the curvature, with every cost."""
    network, state = network_and_state(name, kind, channels_last)
    pictures = [u for u in state.u if u.dim() == 4]
    for u in pictures:
        assert u.is_contiguous(
            memory_format=torch.channels_last if channels_last else torch.contiguous_format
        )
    for cost in (None, *sorted(COSTS)):
        nudge = None if cost is None else random_nudge(network, cost, batch=2)
        curvature = cost == "cross_entropy" and not channels_last and name != "residual"
        assert_by_autograd(network, state, nudge, curvature)
    free = random_state(network, 2, ())
    assert_by_autograd(network, free, random_nudge(network, batch=2), curvature=False)


@pytest.mark.parametrize("kind", ["gaussian", "predictive_coding"])
def test_edges_between_the_same_two_layers_have_a_bound_of_the_curvature(kind):
    """Which is nearly reached where they are alike."""
    twice = [FIRST, ((1, Identity), (1, Identity)), ((2, OUT),)]
    for layers in (NETWORKS["residual"], twice):
        network = graph(LOCALS[kind](), "identity", PICTURE, layers)
        state = random_state(network, 2)
        with torch.no_grad():
            found = network.newton_terms(state, 1, network.site(state, 1))[1] * network.local.scale
        wanted = curvature_by_autograd(network, state.u, 1)
        assert bool((found > wanted * (1 - 1e-9)).all())
    torch.testing.assert_close(found, wanted)


@each_kind
@pytest.mark.parametrize("name", ["max", "average", "soft", "strided skip"])
def test_what_is_known_within_a_hold_follows_the_state(name, kind):
    """Arg-max, slopes and norms belong to the rates as they are, not to those of the start."""
    network, state = network_and_state(name, kind)
    nudge = random_nudge(network, batch=2)
    with state.held():
        for _ in range(2):
            assert_by_autograd(network, state, nudge)
            for layer in state.free:
                state.u[layer].copy_(random_state(network, 2).u[layer])
                state.moved(layer)


@pytest.mark.parametrize("phi", ["relu", "relu6", "leaky_relu", "hard_sigmoid"])
@each_kind
def test_a_pooled_layer_with_kinks(phi, kind):
    network, state = network_and_state("max", kind, phi=phi)
    assert_by_autograd(network, state, random_nudge(network, batch=2))


@each_kind
def test_channels_last_goes_the_same_way(kind):
    """Of the same weights, in float32: state and gradient after some sweeps."""
    ends = []
    for channels_last in (False, True):
        torch.manual_seed(5)
        network = graph(LOCALS[kind](), "hard_sigmoid", PICTURE, NETWORKS["max"]).float()
        if channels_last:
            network.use_channels_last()
        state = network.new_state(4)
        state.clamp(0, torch.rand(4, *PICTURE))
        nudge = random_nudge(network, batch=4)
        Newton().relax(network, state, nudge, 5)
        ends.append([*state.u, *weight_gradient(network, state)])
    assert_close_lists(*ends, rtol=1e-4, atol=1e-5)


@each_format
@pytest.mark.parametrize(("stride", "channels"), [(2, 3), (2, 4), (3, 3)])
def test_a_strided_kernel_of_one_pixel_in_single_precision(stride, channels, channels_last):
    """By hand. Torch's own writes past its buffer, or is wrong, without AVX-512."""
    edge = Conv((channels, 32, 32), channels=128, kernel=1, stride=stride, bias=False)
    r, signal = torch.randn(2, *edge.in_shape), torch.randn(2, *edge.out_shape)
    if channels_last:
        r, signal = (x.to(memory_format=torch.channels_last) for x in (r, signal))
    out, memory = torch.empty_like(signal), {}
    with torch.no_grad():
        edge.drive(r, out, None, memory)
        pulled, found = torch.empty_like(r), torch.empty_like(edge.weight)
        edge.pull(r, signal, pulled, None, memory)
        edge.gradient(r, signal, 1.0, [found], False, memory)
    (by_autograd,) = torch.autograd.grad(edge(r), edge.weight, signal)
    seen, weight = r[..., ::stride, ::stride].double(), edge.weight[..., 0, 0].double()
    torch.testing.assert_close(out.double(), torch.einsum("oi,nihw->nohw", weight, seen), **NEAR)
    back = torch.einsum("oi,nohw->nihw", weight, signal.double())
    torch.testing.assert_close(pulled[..., ::stride, ::stride].double(), back, **NEAR)
    assert pulled.count_nonzero() == back.numel()
    wanted = torch.einsum("nohw,nihw->oi", signal.double(), seen)[..., None, None]
    for gradient in (found, by_autograd):
        torch.testing.assert_close(gradient.double(), wanted, **NEAR)


NEAR = {"atol": 1e-3, "rtol": 1e-4}
