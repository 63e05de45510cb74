"""A trained network back from a run's folder, without Hydra, data or the working directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from eqprop.config.targets import locate
from eqprop.data import Dataset
from eqprop.estimator import Estimator
from eqprop.network import CEnergy, Edge, LocalEnergy, Network, chain
from eqprop.relaxation import Solver, recommended_solver
from eqprop.run import checkpoint as files
from eqprop.run.checkpoint import Checkpoint, CheckpointError
from eqprop.run.errors import ConfigError
from eqprop.run.resume import newest_valid
from eqprop.training.snapshot import restore_weights

PUBLISHED = {
    "eqprop.network.Gaussian": "eqprop.ConditionalGaussian",
    "eqprop.network.Hopfield": "eqprop.RestrictedHopfield",
}
"""The models with the published names, of the energies that have one."""
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def load(
    run: str | os.PathLike[str], checkpoint: str = "last", device: torch.device | str = "cpu"
) -> Network:
    """The trained network of the run in the folder ``run``, in evaluation form: no gradients.

    Of our own energies on dense layers it is the model with the published names (``u``,
    ``clamp_layer``, ``fast_init``, …).

    Args:
        run: a run's folder.
        checkpoint: ``last``, ``best``, or the name of a file in ``run/checkpoints``.
        device: where to put it.

    Raises:
        CheckpointError: if there is no whole checkpoint, or it is not of an eqprop network.
    """
    found = find(run, checkpoint)
    network = build(found).to(device)
    restore_weights(network, found)
    return network.eval().requires_grad_(False)


def find(run: str | os.PathLike[str], name: str = "last") -> Checkpoint:
    """The checkpoint of that name in a run's folder; for ``last`` the newest one that is whole.

    Raises:
        CheckpointError: if there is none, or the one that was named is broken.
    """
    folder = Path(run)
    if name != "last":
        return files.read(folder / "checkpoints" / (name if name.endswith(".pt") else f"{name}.pt"))
    newest, _ = newest_valid(folder)
    if newest is None:
        raise CheckpointError(f"{folder} holds no checkpoint (checkpoints/last.pt)")
    return newest


def build(found: Checkpoint) -> Network:
    """An untrained network as the checkpoint's configuration has it.

    Only energies, edges and costs are made, whatever it names: a checkpoint is data.
    """
    try:
        config, meta = found.meta["config"], found.meta
        options = dict(config["cost"])
        cost = _class_of(options.pop("_target_"), CEnergy)(beta=1.0, **options)
        model = dict(config["model"])
        dense = all(isinstance(layer, int) for layer in model["hidden"])
        if dense and model.keys() == {"_target_", "hidden", "activation"}:
            model["_target_"] = PUBLISHED.get(model["_target_"], model["_target_"])
        network = network_of(model, tuple(meta["in_shape"]), meta["n_out"], cost, 1)
        return network.to(DTYPES[config["device"]["dtype"]])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ConfigError) as error:
        raise CheckpointError(
            f"{found.path} is not of a network that can be built here "
            f"({type(error).__name__}: {error})"
        ) from error


def network_of(
    model: Mapping[str, Any], in_shape: tuple[int, ...], n_out: int, cost: CEnergy, batch_size: int
) -> Network:
    """The network that the configuration's ``model`` describes, between input and classes.

    Raises:
        ConfigError: if a ``_target_`` is no energy or edge.
        ValueError: if its parts do not fit together.
    """
    options = dict(model)
    energy = _class_of(options.pop("_target_"), LocalEnergy, Network)
    hidden, activation = options.pop("hidden"), options.pop("activation")
    edges = []
    for layer in hidden:
        keys = {} if isinstance(layer, int) else dict(layer)
        edges.append(partial(_class_of(keys.pop("_target_"), Edge), **keys) if keys else layer)
    phi = ["identity", *[activation] * (len(hidden) + 1)]
    return chain(partial(energy, **options), in_shape, edges, n_out, phi, cost, batch_size)


def refuse_foreign(found: Checkpoint) -> None:
    """Refuse a checkpoint that would make anything but the parts of a training.

    Raises:
        CheckpointError: if a ``_target_`` is not a class of the kind that stands there.
    """
    build(found)
    try:
        config = found.meta["config"]
        _class_of(config["dataset"]["_target_"], Dataset)
        _class_of(config["estimator"]["_target_"], Estimator)
        _class_of(config["optimizer"]["_target_"], torch.optim.Optimizer)
        if locate(str(config["dynamics"]["_target_"])) is not recommended_solver:
            _class_of(config["dynamics"]["_target_"], Solver)
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{found.path} is of no training ({error})") from error


def _class_of(target: Any, *bases: type) -> Any:
    found = locate(str(target))
    if not (isinstance(found, type) and issubclass(found, bases)):
        raise ConfigError(f"{target} is no {bases[0].__name__}")
    return found
