"""How weights and biases start: the published intervals, and a factor of a skip's own."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from eqprop.network import Conv, Hopfield, Skip, SquaredError, chain

HIDDEN = [partial(Conv, channels=8, kernel=3, padding=1), 300]


def made(**keys):
    torch.manual_seed(1)
    skips = [Skip(0, 1, partial(Conv, channels=8, kernel=1, bias=False), keys.pop("own", None))]
    phi = ["identity"] * 4
    return chain(Hopfield, (2, 12, 12), HIDDEN, 10, phi, SquaredError(), 1, skips, **keys)


def test_glorot_is_uniform_between_its_bounds():
    network = made(weight_init="glorot", bias_init="zeros", gain=[1.0, 2.0, 3.0])
    fans = [(2 * 9, 8 * 9), (8 * 12 * 12, 300), (300, 10), (2, 8)]
    for edge, gain, (fan_in, fan_out) in zip(network.edges, (1, 2, 3, 1), fans, strict=True):
        bound = gain * math.sqrt(6.0 / (fan_in + fan_out))
        found = edge.weight.detach()
        assert float(found.abs().max()) <= bound
        if found.numel() > 1000:
            assert float(found.abs().max()) > 0.95 * bound
            assert float(found.std()) == pytest.approx(bound / math.sqrt(3.0), rel=0.1)
        assert getattr(edge, "bias", None) is None or not edge.bias.any()


@pytest.mark.parametrize("own", [None, 0.7])
def test_a_skip_has_its_own_factor_or_that_of_its_layer(own):
    plain, changed = made(), made(gain=[0.6, 1.0, 1.0], own=own)
    row, skip = plain.edges[0], plain.edges[3]
    torch.testing.assert_close(changed.edges[0].weight, 0.6 * row.weight)
    torch.testing.assert_close(changed.edges[3].weight, (own or 0.6) * skip.weight)
    torch.testing.assert_close(changed.edges[1].weight, plain.edges[1].weight)
