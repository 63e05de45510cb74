"""Finds the class or function that a `_target_` names, and tells whether it fits there."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from eqprop.config.explain import meant
from eqprop.run.errors import ConfigError
from eqprop.run.text import one_line

BASES = {
    "model": ("eqprop.network.Network", "eqprop.network.LocalEnergy"),
    "edge": ("eqprop.network.Edge",),
    "cost": ("eqprop.network.CEnergy",),
    "optimizer": ("torch.optim.Optimizer",),
    "scheduler": ("torch.optim.lr_scheduler.LRScheduler",),
    "dataset": ("eqprop.data.Dataset",),
    "dataset.augment": ("eqprop.data.Augmentation",),
    "dynamics": ("eqprop.relaxation.Solver",),
    "estimator": ("eqprop.estimator.Estimator",),
    "noise": ("eqprop.training.noise.Noise",),
    "ablation": ("eqprop.training.ablation.Ablation",),
    "callbacks": ("eqprop.training.callback.Callback",),
    "tracking.trackers": ("eqprop.tracking.Tracker",),
}
"""What a class that stands in a group must be derived from, one of them."""


def locate(target: str) -> Any:
    """Import the class or function of a dotted path, or raise ConfigError with the nearest name."""
    home, _, name = target.rpartition(".")
    if not home or not all(part.isidentifier() for part in target.split(".")):
        raise ConfigError("not a dotted path of names")
    parent = _module_or_class(home)
    try:
        found = getattr(parent, name)
    except AttributeError as error:
        names = [module.name for module in pkgutil.iter_modules(getattr(parent, "__path__", []))]
        names += [other for other in dir(parent) if callable(getattr(parent, other, None))]
        raise ConfigError(f"{home} has no {name}{meant(name, names, f'{home}.')}") from error
    if not callable(found):
        raise ConfigError("neither a class nor a function")
    return found


def _module_or_class(path: str) -> Any:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        missing = error.name is not None and f"{path}.".startswith(f"{error.name}.")
        if missing and "." in path:  # it may be a class
            return locate(path)
        raise ConfigError(one_line(error)) from error
    except (Exception, SystemExit) as error:  # it is somebody else's code that runs here
        raise ConfigError(one_line(f"{type(error).__name__}: {error}")) from error


def check_base(group: str, constructor: Any) -> None:
    """Raise ConfigError for a class that cannot stand in the group; a function may return any."""
    bases = BASES.get(group, ())
    kinds = tuple(locate(base) for base in bases)
    if kinds and isinstance(constructor, type) and not issubclass(constructor, kinds):
        raise ConfigError(f"it is no subclass of {' or '.join(bases)}")
