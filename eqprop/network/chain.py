"""Builds the layered networks that a configuration describes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from eqprop.network.activation import one_a_layer
from eqprop.network.cost import CEnergy
from eqprop.network.edge import Dense, Edge, Shape
from eqprop.network.local import LocalEnergy
from eqprop.network.network import Network

Hidden = int | Callable[[Shape], Edge]
"""A dense layer of so many units, or what makes the edge into a layer from the shape below it."""


def chain(
    make: Callable[..., LocalEnergy | Network],
    in_shape: Shape,
    hidden: Sequence[Hidden],
    n_out: int,
    phi: Sequence[str | Callable[[Tensor], Tensor]],
    cost: CEnergy,
    batch_size: int,
) -> Network:
    """Input, hidden layers and output, each joined to the next by one edge.

    Args:
        make: makes the local terms of the energy; or a whole model, from the arguments of
            `EnergyBasedModel`, whose layers are dense.

    Raises:
        ValueError: if a model that is made whole is asked for other than dense layers.
    """
    cls: Any = getattr(make, "func", make)
    if isinstance(cls, type) and issubclass(cls, LocalEnergy):
        shapes, edges = [tuple(in_shape)], []
        for source, layer in enumerate([*hidden, n_out]):
            edge = Dense(shapes[-1], layer) if isinstance(layer, int) else layer(shapes[-1])
            edge.source, edge.target = source, source + 1
            shapes.append(edge.out_shape)
            edges.append(edge)
        local: Any = make()
        return Network(shapes, one_a_layer(phi, len(shapes)), edges, local)
    sizes = [layer for layer in hidden if isinstance(layer, int)]
    if len(sizes) < len(hidden):
        raise ValueError("model.hidden: a model that gives its whole energy has dense layers only")
    inputs = math.prod(in_shape)
    model: Any = make(
        dimensions=[inputs, *sizes, n_out], c_energy=cost, batch_size=batch_size, phi=list(phi)
    )
    return model
