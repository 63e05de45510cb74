"""Builds the networks that a configuration describes: layers in a row, and edges that skip some."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eqprop.network.activation import one_a_layer
from eqprop.network.cost import CEnergy
from eqprop.network.edge import Dense, Edge, Shape
from eqprop.network.local import LocalEnergy
from eqprop.network.network import Network

MakeEdge = Callable[[Shape], Edge]
"""Makes an edge from the shape of the layer that it comes from."""

Hidden = int | MakeEdge
"""A dense layer of so many units, or what makes the edge into a layer."""


class Skip(NamedTuple):
    """An edge beside the row; layers are counted from the input, 0."""

    source: int
    target: int
    make: MakeEdge


def chain(
    make: Callable[..., LocalEnergy | Network],
    in_shape: Shape,
    hidden: Sequence[Hidden],
    n_out: int,
    phi: Sequence[str | Callable[[Tensor], Tensor]],
    cost: CEnergy,
    batch_size: int,
    skips: Sequence[Skip] = (),
    gain: float | Sequence[float] = 1.0,
    bias_init: str = "uniform",
) -> Network:
    """Input, hidden layers and output, each joined to the next by one edge, and skips beside them.

    Where all of them are dense, the input is a flat layer.

    Args:
        make: makes the local terms of the energy; or a whole model, from the arguments of
            `EnergyBasedModel`, whose layers are dense.
        gain: the factor on the first weights and biases: one number, or one a layer above the
            input; a skip has that of the layer it ends in.
        bias_init: ``uniform``, as the edges make them, or ``zeros``.

    Raises:
        ValueError: if shapes do not fit, naming the key and both shapes; or if a model that is
            made whole is asked for other than dense layers in a row.
    """
    cls: Any = getattr(make, "func", make)
    if all(isinstance(layer, int) for layer in hidden):
        in_shape = (math.prod(in_shape),)
    if isinstance(cls, type) and issubclass(cls, LocalEnergy):
        edges = _row(tuple(in_shape), [*hidden, n_out])
        shapes = [tuple(in_shape), *(edge.out_shape for edge in edges)]
        edges += [_skip(i, skip, shapes) for i, skip in enumerate(skips)]
        local: Any = make()
        network = Network(shapes, one_a_layer(phi, len(shapes)), edges, local)
    else:
        network = _whole_model(make, in_shape, hidden, n_out, phi, cost, batch_size, skips)
    _start(network, gain, bias_init)
    return network


def _row(in_shape: Shape, layers: Sequence[Hidden]) -> list[Edge]:
    edges: list[Edge] = []
    shape = in_shape
    for source, layer in enumerate(layers):
        try:
            edge = Dense(shape, layer) if isinstance(layer, int) else layer(shape)
        except ValueError as error:
            raise ValueError(f"model.hidden[{source}]: {error}") from error
        edge.source, edge.target = source, source + 1
        edges.append(edge)
        shape = edge.out_shape
    return edges


def _skip(i: int, skip: Skip, shapes: Sequence[Shape]) -> Edge:
    for key, layer in (("from", skip.source), ("to", skip.target)):
        if not 0 <= layer < len(shapes):
            last = len(shapes) - 1
            raise ValueError(f"model.skips[{i}].{key}={layer}: layers go from 0 to {last}")
    try:
        edge = skip.make(shapes[skip.source])
    except ValueError as error:
        raise ValueError(f"model.skips[{i}]: {error}") from error
    edge.source, edge.target = skip.source, skip.target
    if edge.out_shape != shapes[skip.target]:
        raise ValueError(
            f"model.skips[{i}]: it makes {edge.out_shape} of layer {skip.source} "
            f"{shapes[skip.source]}, but layer {skip.target} is {shapes[skip.target]}"
        )
    return edge


def _whole_model(
    make: Callable[..., Any],
    in_shape: Shape,
    hidden: Sequence[Hidden],
    n_out: int,
    phi: Sequence[str | Callable[[Tensor], Tensor]],
    cost: CEnergy,
    batch_size: int,
    skips: Sequence[Skip],
) -> Network:
    sizes = [layer for layer in hidden if isinstance(layer, int)]
    if skips or len(sizes) < len(hidden):
        key = "model.skips" if skips else "model.hidden"
        raise ValueError(f"{key}: a model that gives its whole energy has dense layers in a row")
    model: Network = make(
        dimensions=[math.prod(in_shape), *sizes, n_out],
        c_energy=cost,
        batch_size=batch_size,
        phi=list(phi),
    )
    return model


@torch.no_grad()
def _start(network: Network, gain: float | Sequence[float], bias_init: str) -> None:
    layers = network.n_layers - 1
    gains = [gain] * layers if isinstance(gain, (int, float)) else list(gain)
    if len(gains) != layers:
        raise ValueError(
            f"model.gain={gains}: {layers} layers need one number each, or one for all, "
            f"not {len(gains)}"
        )
    for edge in network.edges:
        for parameter in edge.parameters():
            parameter.mul_(gains[edge.target - 1])
        bias = getattr(edge, "bias", None)
        if bias_init == "zeros" and bias is not None:
            bias.zero_()
