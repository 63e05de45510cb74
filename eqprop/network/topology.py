"""Which layers the edges of a network join: what is refused, and in which order signals travel."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter

from eqprop.network.edge import Edge, Shape


def check_edges(shapes: Sequence[Shape], edges: Sequence[Edge]) -> None:
    """Refuse edges that do not fit the layers, or one another.

    Raises:
        ValueError: naming the layers, and both shapes where they do not fit.
    """
    for edge in edges:
        joined = shapes[edge.source], shapes[edge.target]
        if (edge.in_shape, edge.out_shape) != joined:
            raise ValueError(
                f"an edge from {edge.in_shape} to {edge.out_shape} cannot join layer "
                f"{edge.source} {joined[0]} to layer {edge.target} {joined[1]}"
            )
    for layer, shape in enumerate(shapes):
        into = [edge for edge in edges if edge.target == layer]
        if into and layer == 0:
            raise ValueError("an edge ends in layer 0, the input, which nothing drives")
        if not into and layer > 0:
            raise ValueError(f"no edge ends in layer {layer} {shape}")
        if sum(getattr(edge, "bias", None) is not None for edge in into) > 1:
            raise ValueError(f"layer {layer} has two edges with a bias: make one bias=False")
    parameters = [p for edge in edges for p in edge.parameters()]
    if len({id(p) for p in parameters}) < len(parameters):
        raise ValueError("two edges share a parameter: each edge needs its own")


def in_order(n_layers: int, edges: Sequence[Edge]) -> tuple[list[int], list[int]]:
    """The layers above the input, each after those that drive it, and no cycle.

    Where edges go around there is no such order: then the layers as they are, and those of a cycle.
    """
    graph = {layer: [e.source for e in edges if e.target == layer] for layer in range(n_layers)}
    try:
        return [layer for layer in TopologicalSorter(graph).static_order() if layer], []
    except CycleError as error:
        return list(range(1, n_layers)), list(error.args[1])
