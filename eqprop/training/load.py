"""A trained model back from a run's folder, without Hydra, data or the run's working directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from eqprop.config.targets import locate
from eqprop.cost import CEnergy
from eqprop.data import Dataset
from eqprop.energy import EnergyBasedModel
from eqprop.estimator import Estimator
from eqprop.relaxation import Solver
from eqprop.run import checkpoint as files
from eqprop.run.checkpoint import Checkpoint, CheckpointError
from eqprop.run.errors import ConfigError
from eqprop.run.resume import newest_valid
from eqprop.training.snapshot import restore_weights

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def load(
    run: str | os.PathLike[str], checkpoint: str = "last", device: torch.device | str = "cpu"
) -> EnergyBasedModel:
    """The trained model of the run in the folder ``run``, in evaluation form: no gradients.

    Args:
        run: a run's folder.
        checkpoint: ``last``, ``best``, or the name of a file in ``run/checkpoints``.
        device: where to put it.

    Raises:
        CheckpointError: if there is no whole checkpoint, or it is not of an eqprop network.
    """
    found = find(run, checkpoint)
    model = build(found).to(device)
    restore_weights(model, found)
    return model.eval().requires_grad_(False)


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


def build(found: Checkpoint) -> EnergyBasedModel:
    """An untrained model as the checkpoint's configuration has it.

    Only energies and costs are made, whatever the configuration names: a checkpoint is data.
    """
    try:
        config, dimensions = found.meta["config"], found.meta["dimensions"]
        options = dict(config["model"])
        energy = _class_of(options.pop("_target_"), EnergyBasedModel)
        hidden, activation = options.pop("hidden"), options.pop("activation")
        cost = dict(config["cost"])
        c_energy = _class_of(cost.pop("_target_"), CEnergy)
        model = energy(
            dimensions=dimensions,
            c_energy=c_energy(beta=config["estimator"].get("beta", 1.0), **cost),
            batch_size=1,
            phi=["identity", *[activation] * (len(hidden) + 1)],
            **options,
        )
        return model.to(DTYPES[config["device"]["dtype"]])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ConfigError) as error:
        raise CheckpointError(
            f"{found.path} is not of a network that can be built here "
            f"({type(error).__name__}: {error})"
        ) from error


def refuse_foreign(found: Checkpoint) -> None:
    """Refuse a checkpoint that would make anything but the parts of a training.

    Raises:
        CheckpointError: if a ``_target_`` is not a class of the kind that stands there.
    """
    kinds = {
        "dataset": Dataset,
        "dynamics": Solver,
        "estimator": Estimator,
        "optimizer": torch.optim.Optimizer,
    }
    build(found)
    try:
        for group, kind in kinds.items():
            _class_of(found.meta["config"][group]["_target_"], kind)
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{found.path} is of no training ({error})") from error


def _class_of(target: Any, base: Any) -> Any:
    found = locate(str(target))
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError(f"{target} is no {base.__name__}")
    return found
