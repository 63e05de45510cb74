"""In which order a sweep moves the layers, and by what rule: its keys."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Gt
from typing_extensions import Doc

from eqprop.network import Network

Rule = Annotated[
    Literal["newton", "exact", "projected"],
    Doc(
        "how a layer moves: newton (gradient over curvature), exact (to its minimum), projected "
        "(to where its own gradient vanishes, the signals it receives held)"
    ),
]
Order = Annotated[
    Literal["backward", "forward", "even_odd", "odd_even", "synchronous"],
    Doc(
        "which layers move in turn; even_odd: all that do not touch, the output's group first; "
        "odd_even: the first layer's group first; synchronous: all, from the same state"
    ),
]
Place = Annotated[
    Literal["inside", "outside"],
    Doc(
        "where rule projected puts the nudge: inside the output's φ, or outside, where it moves a "
        "saturated output too"
    ),
]
Clip = Annotated[float, Gt(0), Doc("the furthest that a newton step moves a unit")]


def groups(network: Network, order: Order) -> list[list[int]]:
    """The layers above the input, and the input, in the order in which a sweep moves them."""
    layers = list(range(network.n_layers - 1, -1, -1))
    last = [[layers.pop(0)]] if network.terms[-1].reads_out else []
    if order == "synchronous":
        return [layers, *last]
    if order in ("backward", "forward"):
        turns = layers if order == "backward" else layers[::-1]
        return [*([layer] for layer in turns), *last]
    if order == "odd_even":
        layers = [*layers[-2::-1], 0]
    colours: dict[int, int] = {}
    for layer in layers:
        beside = [e.target for e in network.out_of[layer]] + [e.source for e in network.into[layer]]
        taken = {colours[other] for other in beside if other in colours}
        colours[layer] = next(c for c in range(len(layers)) if c not in taken)
    found = [[layer for layer in layers if colours[layer] == c] for c in range(len(layers))]
    return [*(group for group in found if group), *last]
