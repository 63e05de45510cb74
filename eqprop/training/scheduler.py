"""The learning rate over a run: a schedule of torch.optim.lr_scheduler, or anybody's."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le, Lt
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR
from typing_extensions import Doc

from eqprop.config.signature import RUN_LENGTH
from eqprop.network import Network
from eqprop.training.optimizer import refusal


class Constant(LRScheduler):
    """The rate stays as it is."""

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        return [group["lr"] for group in self.optimizer.param_groups]


class WarmupCosine(SequentialLR):
    """A linear rise to the rate, then half a cosine down from it.

    ``T_max``: scheduler steps of both together. ``warmup``: the share of these that the rise takes,
    at least one step. ``start_factor``: where the rise begins, as a factor of the rate.
    ``eta_min``: where the cosine ends. Raises ValueError if ``T_max`` has no room for both.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_max: int,
        warmup: Annotated[
            float, Gt(0), Lt(1), Doc("share of T_max in which the rate rises")
        ] = 0.05,
        start_factor: Annotated[
            float, Gt(0), Le(1), Doc("the first rate, as a factor of optimizer.lr")
        ] = 0.1,
        eta_min: Annotated[float, Ge(0), Doc("the last rate")] = 0.0,
    ) -> None:
        rise = max(1, round(warmup * T_max))
        if rise >= T_max:
            raise ValueError(f"T_max={T_max}: a rise and a fall need at least {rise + 1} steps")
        parts: list[LRScheduler] = [
            LinearLR(optimizer, start_factor, total_iters=rise),
            CosineAnnealingLR(optimizer, T_max - rise, eta_min),
        ]
        super().__init__(optimizer, parts, [rise])


@dataclass
class Schedule:
    """Moves the rates of an optimizer, as a function of how much of the run is done.

    A checkpoint so needs no more than the place of the run; and a run that is given more epochs
    goes on as one of that length from the beginning would.
    """

    scheduler: LRScheduler | None = None  # None: the rates stay as the optimizer has them
    every: str = "epoch"  # or step

    def end(self, unit: str) -> None:
        """An epoch, or a step, is done."""
        if self.scheduler is None or unit != self.every:
            return
        with warnings.catch_warnings():  # the optimizer's step was in an earlier process
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            self.scheduler.step()

    def go_on(self, epochs: int, steps: int) -> None:
        """Move a fresh schedule to where so many epochs, and steps, are done."""
        for _ in range(steps if self.every == "step" else epochs):
            self.end(self.every)


def build_schedule(
    node: DictConfig | None,
    optimizer: Optimizer,
    epochs: int,
    steps_an_epoch: int,
    captured: bool = False,
) -> Schedule:
    """The schedule of ``cfg.scheduler`` for a run of that length, or ConfigError.

    A length that the configuration leaves open is the run's. Where the training step is
    ``captured``, the rates become tensors: a replayed step reads what they are by then.
    """
    if node is None:  # the configuration of an older run
        return Schedule()
    options: Any = OmegaConf.to_container(node, resolve=True)
    every = options.pop("every", "epoch")
    make: Any = instantiate(options, _partial_=True)
    length = epochs * (steps_an_epoch if every == "step" else 1)
    known = inspect.signature(make.func).parameters
    lengths = {key: length for key in RUN_LENGTH if key in known and options.get(key) is None}
    try:
        scheduler = make(optimizer, **lengths)
    except (TypeError, ValueError) as error:
        raise refusal("scheduler", node, error) from error
    if isinstance(scheduler, Constant):
        return Schedule()
    if captured:
        _place_rates(optimizer)
    return Schedule(scheduler, every)


def _place_rates(optimizer: Optimizer) -> None:
    lr = inspect.signature(type(optimizer)).parameters.get("lr")
    if lr is None or "Tensor" not in str(lr.annotation):
        return  # the step is captured anew whenever the number changes
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(float(group["lr"]), device=group["params"][0].device)


def learning_rates(optimizer: Optimizer, network: Network) -> dict[str, float]:
    """``learning_rate``, or ``learning_rate/<parameter>`` where layers have rates of their own."""
    groups = [group for group in optimizer.param_groups if "lr" in group]
    if len(groups) == 1:
        return {"learning_rate": float(groups[0]["lr"])}
    rates = {id(p): float(group["lr"]) for group in groups for p in group["params"]}
    named = network.named_parameters()
    return {f"learning_rate/{name}": rates[id(p)] for name, p in named if id(p) in rates}
