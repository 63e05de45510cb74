"""Layers and skips as a configuration writes them: numbers, and mappings that stand for edges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eqprop.run.errors import ConfigError
from eqprop.run.text import hint, show

SHORT = {"conv": ("eqprop.network.Conv", "channels"), "dense": ("eqprop.network.Dense", "units")}
"""What a mapping may begin with instead of ``_target_``: the edge, and its first key."""

IDENTITY = "eqprop.network.Identity"


def edge_of(path: str, layer: Mapping[str, Any]) -> dict[str, Any]:
    """``_target_`` and keys of the edge that a mapping at ``path`` stands for.

    ``{conv: 32, kernel: 5}`` is a convolution of 32 channels. Raises ConfigError where a mapping
    names no edge.
    """
    if "_target_" in layer:
        return dict(layer)
    kinds = [key for key in SHORT if key in layer]
    if len(kinds) != 1:
        near = hint(next(map(str, layer), ""), SHORT)
        raise ConfigError(
            f"{path}={show(dict(layer))}: must be a number of units, {{conv: channels, …}}, "
            f"{{dense: units}} or {{_target_: class, …}}{near}"
        )
    target, first = SHORT[kinds[0]]
    rest = {key: value for key, value in layer.items() if key != kinds[0]}
    return {"_target_": target, first: layer[kinds[0]], **rest}


def skip_of(path: str, skip: Mapping[str, Any]) -> tuple[int, int, dict[str, Any], float | None]:
    """Where a skip begins and ends; its edge, the identity where it names none; and its gain."""
    keys = dict(skip)
    ends = []
    for key in ("from", "to"):
        layer = keys.pop(key, None)
        if not isinstance(layer, int) or isinstance(layer, bool) or layer < 0:
            raise ConfigError(
                f"{path}.{key}={show(layer)}: must be a whole number >= 0: a layer, counted from "
                "the input, 0"
            )
        ends.append(layer)
    gain = keys.pop("gain", None)
    if gain is not None and not (type(gain) in (int, float) and gain > 0):
        raise ConfigError(f"{path}.gain={show(gain)}: must be a number > 0, on the first weights")
    if not keys:
        return ends[0], ends[1], {"_target_": IDENTITY}, gain
    if "_target_" not in keys:
        keys = {"bias": False, **keys}  # the edge in the row carries the layer's
    return ends[0], ends[1], edge_of(path, keys), gain


def activations(model: Mapping[str, Any], energy: Any) -> tuple[str, str]:
    """The activation of the hidden layers, and of the output; ``auto`` asks the energy."""
    hidden, output = model["activation"], model.get("output_activation")
    if hidden == "auto":
        dense = all(isinstance(layer, int) for layer in model["hidden"])
        terms = getattr(energy, "terms_of", energy)
        hidden, suited = getattr(terms, "suits_dense" if dense else "suits_pictures")
        output = output or suited
    return hidden, output or hidden


def short_key(path: str, layer: Mapping[str, Any], line: str) -> str:
    """A line about an edge's key in the words of the mapping: ``conv``, not ``channels``."""
    for key, (_, first) in SHORT.items():
        if key in layer:
            line = line.replace(f"{path}.{first}", f"{path}.{key}")
    return line
