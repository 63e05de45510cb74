"""What goes together across the parts of the configuration that are no components.

A component says itself what it needs of the others: where its class has a static or class method
``check_config(config)``, that raises ValueError with one line for a configuration it refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from eqprop.config.schema import Config
from eqprop.run import hardware
from eqprop.run.errors import ConfigError
from eqprop.run.text import show


def broken_rules(config: Config) -> Iterator[str]:
    """Yield a line for each thing that does not go together."""
    for component in config.components:
        check = getattr(component.constructor, "check_config", None)
        try:
            if check is not None:
                check(config)
        except (ValueError, ConfigError) as error:
            yield str(error)
    yield from filter(None, (rule(config) for rule in _RULES))


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


def _what_is_captured_never_waits(config: Config) -> str | None:
    obstacle = graph_obstacle(config) if config.device.cuda_graph is True else None
    return obstacle and f"device.cuda_graph=true: {obstacle}"


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


def _nesterov_needs_momentum(config: Config) -> str | None:
    given = config.optimizer.options()  # torch would say so, but only when the run has begun
    momentum, dampening = given.get("momentum", 0), given.get("dampening", 0)
    if given.get("nesterov") is not True or (momentum > 0 and dampening == 0):
        return None
    return (
        "optimizer.nesterov=true: needs optimizer.momentum > 0 and optimizer.dampening = 0, "
        f"got {show(momentum)} and {show(dampening)}"
    )


def _feedforward_start_needs_such_a_pass(config: Config) -> str | None:
    energy = config.model.constructor
    local = getattr(energy, "terms_of", energy)
    wanted = getattr(config.dynamics, "init", None) == "feedforward"
    if not wanted or getattr(local, "feedforward", True):
        return None
    return (
        f"dynamics.init='feedforward': {energy.__name__} has no feed-forward state; "
        "choose auto, normal or zeros"
    )


_RULES: tuple[Callable[[Config], str | None], ...] = (
    _feedforward_start_needs_such_a_pass,
    _nesterov_needs_momentum,
    _cuda_needs_a_gpu,
    _what_is_captured_never_waits,
)
