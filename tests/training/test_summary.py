"""The table of layers: sums against torch's own counter, and nothing changes for the training."""

from __future__ import annotations

import logging

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from toys import network, recorded, same, training, weights

import eqprop
from eqprop.network import Conv, Dense, Edge, Gaussian, Identity, Network
from eqprop.network.activation import one_a_layer
from eqprop.training.summary import Summary, multiply_adds, rows_of, words

EDGES = [
    Dense((3, 4, 5), 7),
    Conv((3, 9, 8), 4, kernel=3),
    Conv((3, 9, 8), 4, kernel=3, stride=2, padding=1),
    Conv((2, 9, 9), 4, kernel=2, pool="max"),
    Conv((2, 8, 8), 4, kernel=3, padding=1, pool="average", pool_size=4),
]


@pytest.mark.parametrize("edge", EDGES, ids=words)
def test_multiply_adds_are_torch_s_count_of_one_drive(edge: Edge) -> None:
    with FlopCounterMode(display=False) as counter:
        edge.forward(torch.zeros(3, *edge.in_shape))
    assert multiply_adds(edge) == counter.get_total_flops() / 2 / 3  # a sum and a product each


def test_edges_in_words() -> None:
    assert [words(edge) for edge in EDGES] == [
        "Dense",
        "Conv 3x3",
        "Conv 3x3 stride 2",
        "Conv 2x2 + max pool 2x2",
        "Conv 3x3 + average pool 4x4",
    ]
    assert words(joined(Identity((3,)), 0, 2)) == "Identity from layer 0"
    own = joined(Dense((3,), 2), 1, 2)
    own.feedback = Dense((3,), 2, bias=False)
    assert words(own) == "Dense, own feedback"


class Scaled(Edge):
    """An edge of one's own, known by ``forward`` alone."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, shape)
        self.weight = torch.nn.Parameter(torch.rand(*shape))

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return r * self.weight


def joined(edge: Edge, source: int, target: int) -> Edge:
    edge.source, edge.target = source, target
    return edge


def table(network: Network) -> list[tuple[str, ...]]:
    return list(rows_of(network, 5, torch.device("cpu")))


def graph(edge: Edge) -> Network:
    shapes = [(1, 6, 6), (2, 4, 4), (2, 4, 4), (3,)]
    edges = [joined(Conv(shapes[0], 2, kernel=3), 0, 1), edge, joined(Dense(shapes[2], 3), 2, 3)]
    skip = joined(Identity(shapes[1]), 1, 2)
    return Network(shapes, one_a_layer(["tanh"] * 3, 4), [skip, *edges], Gaussian())


def test_a_row_for_each_edge_and_the_total() -> None:
    model = graph(joined(Conv((2, 4, 4), 2, kernel=3, padding=1), 1, 2))
    rows = table(model)
    assert [row[:5] for row in rows] == [
        ("0", "input", "1 x 6 x 6", "", ""),
        ("1", "Conv 3x3", "2 x 4 x 4", "20", "288"),
        ("2", "Identity", "2 x 4 x 4", "0", "0"),
        ("2", "Conv 3x3", "2 x 4 x 4", "38", "576"),
        ("3", "Dense", "3", "99", "96"),
        ("total", "", "", "157", "960"),
    ]
    assert sum(p.numel() for p in model.parameters()) == 157
    shares = [float(row[5].removesuffix(" %")) for row in rows[1:-1]]
    assert sum(shares) == pytest.approx(100.0, abs=0.3)  # each is rounded
    assert all(share > 0.0 for share in shares)
    assert rows[-1][5].endswith(" ms")


def test_the_sums_of_an_edge_of_one_s_own_are_not_known() -> None:
    rows = table(graph(joined(Scaled((2, 4, 4)), 1, 2)))
    assert [row[4] for row in rows[1:]] == ["288", "0", "-", "96", "-"]
    assert rows[3][5].endswith(" %")  # but it is timed


def test_an_energy_given_as_a_whole_is_not_timed() -> None:
    class Whole(eqprop.ConditionalGaussian):
        def energy(self, u):
            return super().energy(u)

    rows = table(Whole([6, 8, 3], eqprop.CrossEntropy(), 5, ["tanh", "tanh"]))
    assert [row[5] for row in rows] == ["", "-", "-", "-"]


class Noisy(Dense):
    """Draws from torch's generator."""

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        return super().forward(r) + 1e-3 * torch.randn(())


def noisy() -> Network:
    model = network("hopfield")
    edges = [Noisy(edge.in_shape, edge.out_shape[0]) for edge in model.edges]
    edges = [joined(edge, source, source + 1) for source, edge in enumerate(edges)]
    return Network(model.shapes, model.phi, edges, model.local).double()


def test_it_is_logged_and_changes_no_bit(caplog: pytest.LogCaptureFixture) -> None:
    found = []
    for callbacks in ([], [Summary()]):
        torch.manual_seed(1)
        run = training("hopfield", *callbacks, network=noisy())
        with caplog.at_level(logging.INFO, "eqprop.training.summary"):
            recorded(run)
        found.append(weights(run))
    assert same(*found)
    said = [r.getMessage() for r in caplog.records if r.name == "eqprop.training.summary"]
    assert "measured on a batch of 10" in " ".join(said)
    heads = [line.split()[0] for line in said[-5:]]
    assert heads == ["layer", "0", "1", "2", "total"]
    assert not any(line != line.rstrip() or "\n" in line for line in said)
