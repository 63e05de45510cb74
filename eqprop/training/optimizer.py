"""Makes a run's optimizer, of torch.optim or of anybody's."""

from __future__ import annotations

import inspect
from functools import partial

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from eqprop.network import Network
from eqprop.run.errors import ConfigError


def build_optimizer(
    node: DictConfig, network: Network, captured: bool = False
) -> torch.optim.Optimizer:
    """The optimizer of ``cfg.optimizer``, fused (one pass over memory) where torch has that."""
    build = instantiate(node, _partial_=True)
    parameters, known = list(network.parameters()), inspect.signature(build.func).parameters
    if captured and "capturable" in known:  # it counts its steps on the device
        build = partial(build, capturable=True)
    elif captured and build.func is not torch.optim.SGD:
        raise ConfigError(
            f"device.cuda_graph=true: {node._target_} takes no capturable=True; choose auto"
        )
    if "fused" not in node and "fused" in known:
        try:
            fused: torch.optim.Optimizer = build(parameters, fused=True)
            return fused
        except (RuntimeError, ValueError):  # not for this device or precision
            pass
    optimizer: torch.optim.Optimizer = build(parameters)
    return optimizer
