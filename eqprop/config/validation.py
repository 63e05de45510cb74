"""From plain values to the typed configuration, or to one line on the first mistake.

A component says itself what it needs of the others: where its class has a static or class method
``check_config(config)``, that raises ValueError with one line for a configuration it refuses. The
rules here are of the parts that are no components.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from eqprop.config import explain, translate
from eqprop.config.schema import Config
from eqprop.run import hardware
from eqprop.run.errors import ConfigError
from eqprop.run.redact import credential_in
from eqprop.run.text import flatten, key_of, show


def validate(cfg: Mapping[Any, Any]) -> Config:
    """Return a resolved configuration, without Hydra's own part, typed, or raise ConfigError."""
    refuse_credentials(cfg)
    keys = [*Config.model_fields, *(key for key, _ in flatten(cfg))]
    config = explain.validated(Config, "", {str(key): part for key, part in cfg.items()}, keys)
    explain.refuse(list(_broken_rules(config)))
    return config


def refuse_credentials(cfg: Mapping[Any, Any]) -> None:
    """Refuse what must not be recorded: a configuration is written as it is, to be read again."""
    leaves = dict(flatten(cfg))
    words = [w for part in ("task", "hydra") for w in leaves.pop(f"hydra.overrides.{part}", [])]
    typed = [(key_of(word), word) for word in words]
    for key, value in [*typed, *sorted(leaves.items(), key=lambda leaf: leaf[0][:6] == "hydra.")]:
        if (found := credential_in(str(value))) is not None:
            how = "leave it out, whoever needs it finds it in the environment"
            raise ConfigError(f"{key}: holds {found}, which would be recorded; {how}")


def validate_composed(cfg: DictConfig) -> Config:
    """Resolve a composed configuration and validate it; Hydra's own part, if there, is left out."""
    return validate(resolved(cfg))


def resolved(cfg: DictConfig, throw_on_missing: bool = True) -> dict[Any, Any]:
    """Return plain values without Hydra's own part, or raise ConfigError on a broken ${…}."""
    ours = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    with translate.resolution(ours):
        plain = OmegaConf.to_container(ours, resolve=True, throw_on_missing=throw_on_missing)
    return cast("dict[Any, Any]", plain)


def graph_obstacle(config: Config) -> str | None:
    """Why a training step cannot be captured as a CUDA graph, and what to do; None where it can."""
    device, tol = config.device, getattr(config.dynamics, "tol", 0.0)
    if device.type == "cpu" or hardware.gpu_count() == 0:
        return "only a GPU has it, and this run computes on the CPU; choose auto or false"
    if tol > 0:
        return f"dynamics.tol={show(tol)} asks the GPU for a number at every step; set it to 0"
    if config.dynamics.target == "eqprop.relaxation.Anderson":
        return "dynamics=anderson solves equations that wait for the GPU; choose another solver"
    if config.optimizer.target == "torch.optim.Adagrad":
        return "optimizer=adagrad counts its steps on the CPU; choose adam or sgd"
    return None


def _broken_rules(config: Config) -> Iterator[str]:
    """Yield a line for each thing that does not go together."""
    for component in config.components:
        check = getattr(component.constructor, "check_config", None)
        try:
            if check is not None:
                check(config)
        except (ValueError, ConfigError) as error:
            yield str(error)
    energy = config.model.constructor
    feeds = getattr(getattr(energy, "terms_of", energy), "feedforward", True)
    if getattr(config.dynamics, "init", None) == "feedforward" and not feeds:
        has_none = f"{energy.__name__} has no feed-forward state"
        yield f"dynamics.init='feedforward': {has_none}; choose auto, normal or zeros"
    given = config.optimizer.options()  # torch would say so, but only when the run has begun
    momentum, dampening = given.get("momentum", 0), given.get("dampening", 0)
    if given.get("nesterov") is True and not (momentum > 0 and dampening == 0):
        needed = "optimizer.momentum > 0 and optimizer.dampening = 0"
        yield f"optimizer.nesterov=true: needs {needed}, got {show(momentum)} and {show(dampening)}"
    rates, layers = given.get("lr"), len(config.model.hidden) + 1
    if isinstance(rates, list) and len(rates) != layers:
        counts = f"{len(rates)} given, but there are {layers} weighted layers"
        yield f"optimizer.lr={show(rates)}: {counts}; give one number, or one for each"
    if config.scheduler is not None and (
        missing := _missing_argument(config.scheduler.constructor)
    ):
        target = show(config.scheduler.target)
        yield f"scheduler._target_={target}: its step needs {missing}, which no run gives it"
    if config.init_from is not None and config.resume is None:  # a resumed run has its own weights
        source = Path(config.init_from)
        if not source.is_file() and not any((source / "checkpoints").glob("*.pt")):
            none = "holds no checkpoint (checkpoints/last.pt)"
            what = none if source.is_dir() else "is neither a run's folder nor a checkpoint"
            yield f"init_from={show(config.init_from)}: {what}"
    yield from _broken_device_rules(config)


def _missing_argument(scheduler: Any) -> str:
    """What a scheduler's step cannot do without, such as a metric."""
    if not hasattr(scheduler, "step"):
        return ""
    parameters = list(inspect.signature(scheduler.step).parameters.values())[1:]
    return next((p.name for p in parameters if p.default is p.empty), "")


def _broken_device_rules(config: Config) -> Iterator[str]:
    device = config.device
    if device.type == "cuda" or (device.type == "auto" and device.index > 0):
        count = hardware.gpu_count()
        if device.type == "cuda" and count == 0:
            none = "this machine shows no NVIDIA GPU"
            yield f"device.type='cuda': {none}; choose device=cpu or device=auto"
        elif count and device.index >= count:
            yield f"device.index={device.index}: must be less than the number of GPUs, {count}"
    if device.cuda_graph is True and (obstacle := graph_obstacle(config)):
        yield f"device.cuda_graph=true: {obstacle}"
