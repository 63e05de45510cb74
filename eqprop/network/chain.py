"""Builds the networks that a configuration describes: layers in a row, and edges that skip some."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
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
    gain: float | None = None
    """The factor on its first weights; None: that of the layer it ends in."""


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
    weight_init: str = "uniform",
    feedback: str = "symmetric",
) -> Network:
    """Input, hidden layers and output, each joined to the next by one edge, and skips beside them.

    Where all of them are dense, the input is a flat layer.

    Args:
        make: makes the local terms of the energy; or a whole model, from the arguments of
            `EnergyBasedModel`, whose layers are dense.
        gain: the factor on the first weights and biases: one number, or one a layer above the
            input; a skip without one of its own has that of the layer it ends in.
        bias_init: ``uniform``, as the edges make them, or ``zeros``.
        weight_init: ``uniform``, as the edges make them, or ``glorot``: uniform in
            ± √(6 / (fan_in + fan_out)) (Glorot & Bengio 2010).
        feedback: ``symmetric``, or weights of their own for signals on their way back: drawn as the
            forward ones are, and after all of them. ``learned`` ones are parameters, ``fixed`` ones
            buffers: saved with the network, but nothing that an optimizer or a gradient knows of.

    Raises:
        ValueError: if shapes do not fit, naming the key and both shapes; or if a model that is
            made whole is asked for other than dense layers in a row.
    """
    cls: Any = getattr(make, "func", make)
    if all(isinstance(layer, int) for layer in hidden):
        in_shape = (math.prod(in_shape),)
    if isinstance(cls, type) and issubclass(cls, LocalEnergy):
        makers = [_maker(layer) for layer in [*hidden, n_out]]
        edges = _row(tuple(in_shape), makers)
        shapes = [tuple(in_shape), *(edge.out_shape for edge in edges)]
        edges += [_skip(i, skip, shapes) for i, skip in enumerate(skips)]
        if feedback != "symmetric":
            _add_feedback(edges, [*makers, *(skip.make for skip in skips)])
        local: Any = make()
        network = Network(shapes, one_a_layer(phi, len(shapes)), edges, local)
    elif feedback != "symmetric":
        raise ValueError(
            f"model.feedback={feedback}: a model that gives its whole energy has the same weights "
            "in both directions; choose model.feedback=symmetric"
        )
    else:
        network = _whole_model(make, in_shape, hidden, n_out, phi, cost, batch_size, skips)
    _start(network, gain, bias_init, weight_init, skips)
    if feedback == "fixed":
        for edge in network.edges:
            _freeze(edge.feedback)
    return network


def _maker(layer: Hidden) -> MakeEdge:
    return partial(Dense, units=layer) if isinstance(layer, int) else layer


def _row(in_shape: Shape, makers: Sequence[MakeEdge]) -> list[Edge]:
    edges: list[Edge] = []
    shape = in_shape
    for source, make in enumerate(makers):
        try:
            edge = make(shape)
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


def _add_feedback(edges: Sequence[Edge], makers: Sequence[MakeEdge]) -> None:
    """Weights of their own for what goes back, where it arrives at a layer that can move."""
    for edge, make in zip(edges, makers, strict=True):
        if edge.source > 0 and any(True for _ in edge.weights()):
            own: Any = make(edge.in_shape)
            own.source, own.target = edge.source, edge.target
            if getattr(own, "bias", None) is not None:
                own.bias = None
            edge.feedback = own


def _freeze(edge: Edge | None) -> None:
    """Make buffers of its parameters."""
    for part in () if edge is None else list(edge.modules()):
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach())


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
def _start(
    network: Network,
    gain: float | Sequence[float],
    bias_init: str,
    weight_init: str,
    skips: Sequence[Skip],
) -> None:
    layers = network.n_layers - 1
    gains = [gain] * layers if isinstance(gain, (int, float)) else list(gain)
    if len(gains) != layers:
        raise ValueError(
            f"model.gain={gains}: {layers} layers need one number each, or one for all, "
            f"not {len(gains)}"
        )
    own = [None] * layers + [skip.gain for skip in skips]
    for edge, of_skip in zip(network.edges, own, strict=True):
        for weight in edge.weights() if weight_init == "glorot" else ():
            if weight.dim() > 1:
                torch.nn.init.xavier_uniform_(weight)
        for parameter in edge.parameters():
            parameter.mul_(gains[edge.target - 1] if of_skip is None else of_skip)
        bias = getattr(edge, "bias", None)
        if bias_init == "zeros" and bias is not None:
            bias.zero_()
