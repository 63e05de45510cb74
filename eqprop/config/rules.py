"""What goes together: the rules that reach across groups of the configuration."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING

from eqprop.config import options as o
from eqprop.run import hardware
from eqprop.run.text import show

if TYPE_CHECKING:
    from eqprop.config.schema import Config

GAUSSIAN = "eqprop.ConditionalGaussian"
HOPFIELD = "eqprop.RestrictedHopfield"
TENSORBOARD = "eqprop.tracking.TensorboardTracker"
EXACT = "eqprop.relaxation.Exact"
ANDERSON = "eqprop.relaxation.Anderson"
ADAGRAD = "torch.optim.Adagrad"


def _feedforward_needs_the_gaussian(config: Config) -> str | None:
    solver = config.dynamics
    if config.model.target != HOPFIELD or getattr(solver, "init", None) != "feedforward":
        return None
    return (
        "dynamics.init='feedforward': the Hopfield energy has no feed-forward state; "
        "choose auto, normal or zeros"
    )


def _exact_needs_closed_forms(config: Config) -> str | None:
    if config.dynamics.target != EXACT or config.model.target not in (GAUSSIAN, HOPFIELD):
        return None
    if config.model.target == GAUSSIAN:
        return "dynamics=exact: minimises layers of the Hopfield energy only; choose newton"
    if config.model.activation not in o.PIECEWISE_LINEAR:
        return (
            f"model.activation={show(config.model.activation)}: dynamics=exact needs one of "
            f"{', '.join(o.PIECEWISE_LINEAR)}"
        )
    if config.cost.target != "eqprop.SquaredError":
        return "dynamics=exact: needs cost=mse, whose minimum is a closed form"
    beta = getattr(config.estimator, "beta", 1.0)
    lowest = -beta if isinstance(config.estimator, o.CenteredEstimator) else beta
    if lowest <= -1:
        return f"estimator.beta={show(beta)}: dynamics=exact needs nudges > -1"
    return None


def _nesterov_needs_momentum(config: Config) -> str | None:
    sgd = config.optimizer
    if not isinstance(sgd, o.SGD) or not sgd.nesterov:
        return None
    if sgd.momentum > 0 and sgd.dampening == 0:
        return None
    return (
        "optimizer.nesterov=true: needs optimizer.momentum > 0 and optimizer.dampening = 0, "
        f"got {show(sgd.momentum)} and {show(sgd.dampening)}"
    )


def _cuda_needs_a_gpu(config: Config) -> str | None:
    device = config.device
    if device.type != "cuda" and (device.type == "cpu" or device.index == 0):
        return None
    count = hardware.gpu_count()
    if device.type == "cuda" and count == 0:
        return (
            "device.type='cuda': this machine shows no NVIDIA GPU; choose device=cpu or device=auto"
        )
    if count and device.index >= count:
        return f"device.index={device.index}: must be less than the number of GPUs, {count}"
    return None


def graph_obstacle(config: Config) -> str | None:
    """Why a training step cannot be captured as a CUDA graph, and what to do; None where it can."""
    device, tol = config.device, getattr(config.dynamics, "tol", 0.0)
    if device.type == "cpu" or hardware.gpu_count() == 0:
        return "only a GPU has it, and this run computes on the CPU; choose auto or false"
    if tol > 0:
        return f"dynamics.tol={show(tol)} asks the GPU for a number at every step; set it to 0"
    if config.dynamics.target == ANDERSON:
        return "dynamics=anderson solves equations that wait for the GPU; choose another solver"
    if config.optimizer.target == ADAGRAD:
        return "optimizer=adagrad counts its steps on the CPU; choose adam or sgd"
    return None


def _what_is_captured_never_waits(config: Config) -> str | None:
    obstacle = graph_obstacle(config) if config.device.cuda_graph is True else None
    return obstacle and f"device.cuda_graph=true: {obstacle}"


def _tensorboard_is_an_extra(config: Config) -> str | None:
    chosen = [tracker.target for tracker in config.tracking.trackers.values()]
    if TENSORBOARD not in chosen or importlib.util.find_spec("tensorboard") is not None:
        return None
    return 'tracking=tensorboard: TensorBoard is not installed; pip install "eqprop[tensorboard]"'


RULES: tuple[Callable[[Config], str | None], ...] = (
    _feedforward_needs_the_gaussian,
    _exact_needs_closed_forms,
    _nesterov_needs_momentum,
    _cuda_needs_a_gpu,
    _what_is_captured_never_waits,
    _tensorboard_is_an_extra,
)
"""What goes together: each returns a line where it does not, else None."""
