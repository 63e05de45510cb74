"""Networks and edges that cannot be: one line each, with both shapes or the layers in it."""

from __future__ import annotations

import re
from functools import partial

import pytest
from networks import LOCALS, build, graph, joined

from eqprop.network import Conv, Dense, Gaussian, Hopfield, Identity, Network, PredictiveCoding
from eqprop.network.activation import one_a_layer

PICTURE = (2, 6, 5)


def said(make, *words):
    """What the ValueError says: one line with these words."""
    with pytest.raises(ValueError, match=re.escape(words[0])) as caught:
        make()
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line, line


def network_of(shapes, edges, local=Hopfield):
    return Network(shapes, one_a_layer(["tanh"] * len(shapes), len(shapes)), edges, local())


@pytest.mark.parametrize(
    ("edge", "shapes", "words"),
    [
        (Dense((4,), 6), [(4,), (5,)], ["(4,) to (6,)", "layer 0 (4,)", "layer 1 (5,)"]),
        (Dense((4,), 6), [(3,), (6,)], ["(4,) to (6,)", "layer 0 (3,)"]),
        (Conv(PICTURE, 3), [PICTURE, (3, 4, 4)], ["(2, 6, 5) to (3, 4, 3)", "layer 1 (3, 4, 4)"]),
        (Identity(PICTURE), [PICTURE, (2, 5, 6)], ["(2, 6, 5)", "(2, 5, 6)"]),
    ],
)
def test_shapes_that_do_not_fit(edge, shapes, words):
    said(lambda: network_of(shapes, [joined(edge, 0, 1)]), *words)


def test_two_biases_of_one_layer():
    def make(bias):
        first, second = Dense((4,), 6), Dense((4,), 6, bias=bias)
        return network_of([(4,), (6,)], [joined(first, 0, 1), joined(second, 0, 1)])

    assert make(False).biases[1] is not None
    said(lambda: make(True), "layer 1", "two edges with a bias", "bias=False")


def test_a_parameter_of_two_edges():
    first, second = Dense((4,), 4), Dense((4,), 4)
    second.weight = first.weight
    edges = [joined(first, 0, 1), joined(second, 1, 2)]
    said(lambda: network_of([(4,)] * 3, edges), "share a parameter")


@pytest.mark.parametrize("local", [Gaussian, PredictiveCoding])
def test_a_cycle_where_an_order_is_needed(local):
    joins, shapes = [(0, 1), (1, 2), (2, 3), (3, 2)], [(4,), (4,), (4,), (4,)]
    said(lambda: build(local(), "tanh", joins, shapes), local.__name__, "2 -> 3 -> 2")
    itself = [(0, 1), (1, 1)]
    said(lambda: build(local(), "tanh", itself, shapes[:2]), local.__name__, "1 -> 1")


@pytest.mark.parametrize("kind", sorted(LOCALS))
def test_layers_that_nothing_drives_and_an_input_that_something_does(kind):
    said(lambda: build(LOCALS[kind](), "tanh", [(0, 2)], [(4,)] * 3), "layer 1 (4,)", "no edge")
    said(lambda: build(Hopfield(), "tanh", [(0, 1), (1, 0)], [(4,)] * 2), "layer 0", "input")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"kernel": 6}, ["kernel 6 x 6", "padding 0", "(2, 6, 5)"]),
        ({"kernel": 8, "padding": 1}, ["kernel 8 x 8", "padding 1", "(2, 6, 5)"]),
        ({"pool": "max", "pool_stride": 1}, ["pool_stride=1", "2 x 2", "choose 2"]),
        ({"pool": "average", "pool_size": 3, "pool_stride": 4}, ["pool_stride=4", "choose 3"]),
        ({"pool": "soft"}, ["2 x 2", "(3, 4, 3)", "(2, 6, 5)"]),
        ({"pool": "max", "kernel": 2, "pool_size": 3}, ["3 x 3", "(3, 5, 4)", "(2, 6, 5)"]),
        ({"pool": "max", "pool_size": 5}, ["5 x 5", "(3, 4, 3)"]),
    ],
    ids=str,
)
def test_a_convolution_that_does_not_fit(keys, words):
    said(lambda: Conv(PICTURE, 3, **keys), *words)


def test_the_largest_that_fits():
    assert Conv(PICTURE, 3, kernel=5).out_shape == (3, 2, 1)
    assert Conv(PICTURE, 3, kernel=7, padding=1).out_shape == (3, 2, 1)
    same = Conv(PICTURE, 3, kernel=3, padding=(1), pool="max", pool_size=1, pool_stride=1)
    assert same.out_shape == (3, 6, 5)


@pytest.mark.parametrize("shape", [(30,), (6, 5), (1, 2, 6, 5)])
def test_a_convolution_of_what_is_no_picture(shape):
    said(lambda: Conv(shape, 3), "(channels, height, width)", str(shape))


def test_a_skip_that_joins_other_shapes():
    row = [((0, partial(Conv, channels=2)),), ((1, partial(Conv, channels=2)), (0, Identity))]
    said(lambda: graph(Gaussian(), "tanh", PICTURE, row), "(2, 6, 5)", "layer 2 (2, 2, 1)")
