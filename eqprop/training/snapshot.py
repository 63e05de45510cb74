"""What a checkpoint holds of a training, and putting it back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from eqprop.run.checkpoint import Checkpoint, CheckpointError

if TYPE_CHECKING:
    from eqprop.training.loop import Training

_IMPLEMENTATION = ("fused", "foreach", "capturable", "differentiable")


def capture(training: Training) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plain part and the tensors of everything that decides how the training goes on."""
    at, model = training.at, training.model
    meta = {
        "kind": "training",
        "step": training.step,
        "epoch": at.epoch,
        "batches": at.batches,
        "correct": int(at.correct),
        "seconds": at.seconds,
        "best": dict(training.best),
        "last": dict(training.last),
        "capacity": model.buffers_of.capacity,
        "dimensions": list(model.dimensions),
    }
    state = {
        "model": model.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        # between two batches of an epoch a solver may go on from the state
        "u": [layer.contiguous() for layer in model.u] if at.batches else [],
        "parts": {name: part.state_dict() for name, part in _stateful(training)},
        "random": random_states(training),
    }
    return meta, state


def restore(training: Training, checkpoint: Checkpoint) -> None:
    """Put a training where the checkpoint was written; random states come last.

    Raises:
        CheckpointError: if it is of another network or optimizer; then nothing has been changed.
    """
    meta, state = checkpoint.meta, checkpoint.tensors()
    if meta.get("kind") == "weights":
        raise CheckpointError(
            f"{checkpoint.path} holds weights only, which eqprop.load reads; resume the run itself"
        )
    model, optimizer = training.model, training.optimizer
    try:
        _check_weights(checkpoint, model, state["model"])
        _check_optimizer(checkpoint, optimizer, state["optimizer"])
        model.load_state_dict(state["model"])
        _keep_implementation(optimizer, state["optimizer"])
        optimizer.load_state_dict(state["optimizer"])
        model.resize(int(meta["capacity"]))  # the layout of buffers decides how sums are rounded
        if state["u"]:
            model.u = state["u"]
        _restore_parts(training, state.get("parts", {}))
        training.step = int(meta["step"])
        training.best, training.last = dict(meta["best"]), dict(meta["last"])
        at = training.at
        at.epoch, at.batches = int(meta["epoch"]), int(meta["batches"])
        at.seconds = float(meta["seconds"])
        at.correct = torch.tensor(int(meta["correct"]), device=training.data.train.x.device)
        _restore_random(training, state["random"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise CheckpointError(
            f"{checkpoint.path} does not fit this run ({type(error).__name__}: {error})"
        ) from error


def restore_weights(model: torch.nn.Module, checkpoint: Checkpoint) -> None:
    """Put only the weights back.

    Raises:
        CheckpointError: if it is of another network.
    """
    weights: Any = checkpoint.tensors().get("model")
    _check_weights(checkpoint, model, weights)
    model.load_state_dict(weights)


def _check_weights(checkpoint: Checkpoint, model: torch.nn.Module, found: Any) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if not isinstance(found, dict) or not all(isinstance(t, Tensor) for t in found.values()):
        raise CheckpointError(f"{checkpoint.path} holds no weights")
    given = {name: tuple(tensor.shape) for name, tensor in found.items()}
    for name in [*wanted, *given]:
        if wanted.get(name) != given.get(name):
            raise CheckpointError(
                f"{checkpoint.path} is of another network: {name} is "
                f"{given.get(name, 'missing')} there, {wanted.get(name, 'not known')} here"
            )


def _check_optimizer(checkpoint: Checkpoint, optimizer: torch.optim.Optimizer, found: Any) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    sizes = [len(group["params"]) for group in found["param_groups"]]
    if sizes != [len(group["params"]) for group in optimizer.param_groups]:
        raise CheckpointError(f"{checkpoint.path} is of another optimizer: its parameters differ")
    ours = type(optimizer).__module__.startswith("torch.optim.")
    for number, values in found["state"].items():
        for name, value in values.items():
            whole = isinstance(value, Tensor) and value.dim() > 0
            if ours and whole and value.shape != parameters[number].shape:
                raise CheckpointError(
                    f"{checkpoint.path} is of another optimizer: {name} has shape "
                    f"{tuple(value.shape)}, its parameter {tuple(parameters[number].shape)}"
                )


def _keep_implementation(optimizer: torch.optim.Optimizer, found: dict[str, Any]) -> None:
    """Load an optimizer's numbers, not how the device it came from computed the same."""
    for group, ours in zip(found["param_groups"], optimizer.param_groups, strict=True):
        group.update({key: ours[key] for key in _IMPLEMENTATION if key in group and key in ours})


def _stateful(training: Training) -> Iterator[tuple[str, Any]]:
    """The parts besides model and optimizer that say by ``state_dict`` what they remember."""
    cost = training.model.c_energy
    parts: dict[str, Any] = {"solver": training.solver, "estimator": training.estimator}
    if not isinstance(cost, torch.nn.Module):  # else the model's own state holds it
        parts["cost"] = cost
    for name, part in parts.items():
        if hasattr(part, "state_dict") and hasattr(part, "load_state_dict"):
            yield name, part


def _restore_parts(training: Training, states: dict[str, Any]) -> None:
    parts = dict(_stateful(training))
    if parts.keys() != states.keys():
        raise ValueError("its solver or estimator remembers other things")
    for name, part in parts.items():
        part.load_state_dict(states[name])


@contextmanager
def undone(training: Training) -> Iterator[None]:
    """What happens within to the state, the nudging and the generators is undone at its end."""
    model, cost = training.model, training.model.c_energy
    generator, beta, target = model.generator, cost.beta, cost.target
    states, layers = random_states(training), [layer.clone() for layer in model.u]
    clamped = list(model.clamp_du)
    try:
        yield
    finally:
        model.generator, cost.beta = generator, beta
        model.set_C_target(target)
        model.u, model.clamp_du[:] = layers, clamped
        _restore_random(training, states)


def random_states(training: Training) -> dict[str, Any]:
    """The state of every generator in use: the global ones, and what the parts hold themselves."""
    kind, key, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [str(kind), [int(word) for word in key], *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if training.data.train.x.is_cuda else [],
        "private": {name: _state_of(generator) for name, generator in private_generators(training)},
    }


def _restore_random(training: Training, states: dict[str, Any]) -> None:
    private = dict(private_generators(training))
    if private.keys() != states["private"].keys():
        raise ValueError("it has other random generators")
    random.setstate(states["python"])
    kind, key, *rest = states["numpy"]
    np.random.set_state((kind, np.array(key, np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if training.data.train.x.is_cuda and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    for name, generator in private.items():
        state = states["private"][name]
        if isinstance(generator, torch.Generator):
            generator.set_state(state)
        elif isinstance(generator, random.Random):
            generator.setstate(state)
        else:
            generator.bit_generator.state = state


def _state_of(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    return generator.bit_generator.state


def private_generators(training: Training) -> Iterator[tuple[str, Any]]:
    """The random generators that the parts of a training hold themselves, by name."""
    parts = {
        "model": training.model,
        "cost": training.model.c_energy,
        "solver": training.solver,
        "estimator": training.estimator,
        "optimizer": training.optimizer,
    }
    kinds = (torch.Generator, random.Random, np.random.Generator)
    for part, owner in parts.items():
        for name, value in sorted(getattr(owner, "__dict__", {}).items()):
            if isinstance(value, kinds):
                yield f"{part}.{name}", value
