"""Makes a run's optimizer, of torch.optim or of anybody's."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch.nn import Parameter
from torch.optim import SGD, Optimizer

from eqprop.network import Network
from eqprop.run.errors import ConfigError
from eqprop.run.text import one_line, show


def build_optimizer(
    node: DictConfig,
    network: Network,
    captured: bool = False,
    trained: Collection[Parameter] | None = None,
) -> Optimizer:
    """The optimizer of ``cfg.optimizer``, fused where torch has that, or ConfigError.

    A list ``lr`` gives each weighted layer its own rate. ``clip_norm`` is the training step's.
    ``trained`` are the parameters that it moves; None: all that require a gradient.
    """
    options: Any = OmegaConf.to_container(node, resolve=True)
    options.pop("clip_norm", None)
    rates = options.get("lr")
    learn = [p for p in network.parameters() if p.requires_grad]
    parameters: Any = learn if trained is None else list(trained)
    if isinstance(rates, list):
        parameters = by_layer(network, rates, parameters)
        options["lr"] = rates[0]  # each group has its own
    make: Any = instantiate(options, _partial_=True)
    known = inspect.signature(make.func).parameters
    how = {"capturable": True} if captured and "capturable" in known else {}  # counts on the device
    if captured and not how and make.func is not SGD:
        needed = f"{node._target_} takes no capturable=True"
        raise ConfigError(f"device.cuda_graph=true: {needed}; choose auto")
    if "fused" not in options and "fused" in known:
        with suppress(RuntimeError, TypeError, ValueError):  # not for this device or precision
            return make(parameters, fused=True, **how)
    try:
        return make(parameters, **how)
    except (TypeError, ValueError) as error:
        raise refusal("optimizer", node, error) from error


def by_layer(
    network: Network, rates: Sequence[float], moved: Collection[Parameter] | None = None
) -> list[dict[str, Any]]:
    """A parameter group for each of the `weighted_layers`, of those that are ``moved`` (all)."""
    kept = {id(p) for p in (network.parameters() if moved is None else moved)}
    layers = [[p for p in layer if id(p) in kept] for layer in weighted_layers(network)]
    pairs = zip(layers, rates, strict=True)
    return [{"params": layer, "lr": rate} for layer, rate in pairs if layer]


def weighted_layers(network: Network) -> list[list[Parameter]]:
    """The parameters of each layer above the input: of the edges into it, skips too.

    What belongs to no edge goes with the output layer.
    """
    groups = [[p for edge in into for p in edge.parameters()] for into in network.into[1:]]
    placed = {id(p) for group in groups for p in group}
    groups[-1] += [p for p in network.parameters() if id(p) not in placed]
    return groups


def refusal(group: str, node: DictConfig, error: Exception) -> ConfigError:
    """What a constructor found wrong with the keys of a group, in one line."""
    told = str(error).lower()
    about = next((f".{k}={show(node[k])}" for k in map(str, node) if k.lower() in told), "")
    return ConfigError(f"{group}{about}: {one_line(error)} ({node._target_})")
