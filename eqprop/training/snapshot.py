"""What a checkpoint holds of a training, and putting it back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eqprop.run.checkpoint import Checkpoint, CheckpointError
from eqprop.training.session import Session

_IMPLEMENTATION = ("fused", "foreach", "capturable", "differentiable")


def capture(session: Session) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plain part and the tensors of everything that decides how the training goes on."""
    at, network = session.at, session.network
    state = session.state(session.data.batch_size)
    meta = {
        "kind": "training",
        "step": session.step,
        "epoch": at.epoch,
        "batches": at.batches,
        "correct": int(at.correct),
        "seconds": at.seconds,
        "best": dict(session.best),
        "last": dict(session.last),
        "in_shape": list(network.shapes[0]),
        "n_out": network.shapes[-1][0],
    }
    tensors = {
        "model": network.state_dict(),
        "optimizer": session.optimizer.state_dict(),
        # between two batches of an epoch a solver may go on from the state
        "u": [layer.contiguous() for layer in state.u] if at.batches else [],
        "parts": {name: part.state_dict() for name, part in _stateful(session)},
        "random": random_states(session),
    }
    return meta, tensors


def restore(session: Session, checkpoint: Checkpoint) -> None:
    """Put a training where the checkpoint was written; random states come last.

    Raises:
        CheckpointError: if it is of another network or optimizer; then nothing has been changed.
    """
    meta, state = checkpoint.meta, checkpoint.tensors()
    if meta.get("kind") == "weights":
        raise CheckpointError(
            f"{checkpoint.path} holds weights only, which eqprop.load reads; resume the run itself"
        )
    network, optimizer = session.network, session.optimizer
    try:
        _check_weights(checkpoint, network, state["model"])
        _check_optimizer(checkpoint, optimizer, state["optimizer"])
        network.load_state_dict(state["model"])
        _keep_implementation(optimizer, state["optimizer"])
        optimizer.load_state_dict(state["optimizer"])
        if state["u"]:
            session.state(session.data.batch_size).u[:] = state["u"]
        _restore_parts(session, state.get("parts", {}))
        session.step = int(meta["step"])
        session.best, session.last = dict(meta["best"]), dict(meta["last"])
        at = session.at
        at.epoch, at.batches = int(meta["epoch"]), int(meta["batches"])
        at.seconds = float(meta["seconds"])
        at.correct = torch.tensor(int(meta["correct"]), device=session.data.train.x.device)
        _restore_random(session, state["random"])
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


def _stateful(session: Session) -> Iterator[tuple[str, Any]]:
    """The parts besides model and optimizer that say by ``state_dict`` what they remember."""
    parts: dict[str, Any] = {"solver": session.solver, "estimator": session.estimator}
    parts |= {"cost": session.cost, "energy": session.network.local}
    for name, part in parts.items():
        if part in set(session.network.modules()):  # the network's own state holds it
            continue
        if hasattr(part, "state_dict") and hasattr(part, "load_state_dict"):
            yield name, part


def _restore_parts(session: Session, states: dict[str, Any]) -> None:
    parts = dict(_stateful(session))
    if parts.keys() != states.keys():
        raise ValueError("its solver or estimator remembers other things")
    for name, part in parts.items():
        part.load_state_dict(states[name])


@contextmanager
def random_states_kept(session: Session) -> Iterator[None]:
    """What is drawn within from any generator in use is undone at its end."""
    states = random_states(session)
    try:
        yield
    finally:
        _restore_random(session, states)


def random_states(session: Session) -> dict[str, Any]:
    """The state of every generator in use: the global ones, and what the parts hold themselves."""
    kind, key, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [str(kind), [int(word) for word in key], *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if session.data.train.x.is_cuda else [],
        "private": {name: _state_of(generator) for name, generator in private_generators(session)},
    }


def _restore_random(session: Session, states: dict[str, Any]) -> None:
    private = dict(private_generators(session))
    if private.keys() != states["private"].keys():
        raise ValueError("it has other random generators")
    random.setstate(states["python"])
    kind, key, *rest = states["numpy"]
    np.random.set_state((kind, np.array(key, np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if session.data.train.x.is_cuda and len(states["cuda"]) == torch.cuda.device_count():
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


def private_generators(session: Session) -> Iterator[tuple[str, Any]]:
    """The random generators that the parts of a training hold themselves, by name."""
    parts = {
        "session": session,
        "network": session.network,
        "energy": session.network.local,
        "cost": session.cost,
        "solver": session.solver,
        "estimator": session.estimator,
        "optimizer": session.optimizer,
    }
    kinds = (torch.Generator, random.Random, np.random.Generator)
    for part, owner in parts.items():
        for name, value in sorted(getattr(owner, "__dict__", {}).items()):
            if isinstance(value, kinds):
                yield f"{part}.{name}", value
