"""What a checkpoint holds of a training, and putting it back."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eqprop.run.checkpoint import Checkpoint, CheckpointError
from eqprop.training.session import Position, Session

_TOLD = 4  # parameters that do not fit are named
_IMPLEMENTATION = ("fused", "foreach", "capturable", "differentiable")


def capture(session: Session) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plain part and the tensors of everything that decides how the training goes on."""
    network, state = session.network, session.latest
    goes_on = state is not None and (session.at.batches > 0 or state.carries)
    shapes = {"in_shape": list(network.shapes[0]), "n_out": network.shapes[-1][0]}
    tensors = {
        "model": network.state_dict(),
        "optimizer": session.optimizer.state_dict(),
        # between two batches of an epoch a solver may go on from the state
        "u": [layer.contiguous() for layer in state.u] if state is not None and goes_on else [],
        "parts": {name: part.state_dict() for name, part in _stateful(session).items()},
        "random": random_states(session),
    }
    return place(session) | shapes, tensors


def place(session: Session) -> dict[str, Any]:
    """Where a training stands, in plain values."""
    at = {**vars(session.at), "correct": int(session.at.correct), "cost": float(session.at.cost)}
    found = {"best": dict(session.best), "last": dict(session.last), "stopped": session.stopped}
    return {"kind": "training", "step": session.step, **at, **found}


def restore(session: Session, checkpoint: Checkpoint) -> None:
    """Put a training where the checkpoint was written, or raise CheckpointError."""
    meta, state = checkpoint.meta, checkpoint.tensors()
    if meta.get("kind") == "weights":
        how = "which eqprop.load reads; resume the run itself"
        raise CheckpointError(f"{checkpoint.path} holds weights only, {how}")
    try:
        _check_weights(checkpoint, session.network, state["model"])
        session.schedule.go_on(int(meta["epoch"]) - 1, int(meta["step"]))
        _restore_optimizer(session, state["optimizer"])
        session.network.load_state_dict(state["model"])
        if state["u"]:
            session.latest = session.state(len(state["u"][0]))
            session.latest.u[:] = state["u"]
        parts = _stateful(session)
        if parts.keys() != state.get("parts", {}).keys():
            raise ValueError("its parts saved another state than those of this run have")
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        session.step = int(meta["step"])
        session.best, session.last = dict(meta["best"]), dict(meta["last"])
        session.stopped = meta.get("stopped")
        correct = torch.tensor(int(meta["correct"]), device=session.device)
        done = int(meta["epoch"]), int(meta["batches"])
        total = float(meta.get("cost", math.nan if done[1] else 0.0))  # earlier versions had none
        cost = torch.tensor(total, dtype=torch.float64, device=session.device)
        session.at = Position(*done, correct, cost, float(meta["seconds"]))
        _restore_random(session, state["random"])  # last: what is loaded may draw
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{checkpoint.path} does not fit this run ({why})") from error


def restore_weights(model: torch.nn.Module, checkpoint: Checkpoint) -> None:
    """Put only the weights back. Raises CheckpointError if it is of another network."""
    weights: Any = checkpoint.tensors().get("model")
    _check_weights(checkpoint, model, weights)
    model.load_state_dict(weights)


def _check_weights(checkpoint: Checkpoint, model: torch.nn.Module, found: Any) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if not isinstance(found, dict) or not all(isinstance(t, Tensor) for t in found.values()):
        raise CheckpointError(f"{checkpoint.path} holds no weights")
    given = {name: tuple(tensor.shape) for name, tensor in found.items()}
    misfits = []
    for name in dict.fromkeys([*wanted, *given]):
        if wanted.get(name) != given.get(name):
            there, here = given.get(name, "missing"), wanted.get(name, "not known")
            misfits.append(f"{name} is {there} there, {here} here")
    if misfits:
        more = f" (and {len(misfits) - _TOLD} more)" if len(misfits) > _TOLD else ""
        what = ", ".join(misfits[:_TOLD])
        raise CheckpointError(f"{checkpoint.path} is of another network: {what}{more}")


def _restore_optimizer(session: Session, found: dict[str, Any]) -> None:
    """Load an optimizer's numbers, not how the device it came from computed the same.

    Rates that a schedule moves are where that has moved them.
    """
    scheduled = ("lr", "initial_lr") if session.schedule.scheduler is not None else ()
    kept = (*_IMPLEMENTATION, *scheduled)
    for group, ours in zip(found["param_groups"], session.optimizer.param_groups, strict=False):
        group.update({key: ours[key] for key in kept if key in group and key in ours})
    session.optimizer.load_state_dict(found)


def _parts(session: Session) -> dict[str, Any]:
    """What may remember something, or hold a generator, besides network and optimizer."""
    solver, estimator = session.solver, session.estimator
    energy, cost = session.network.local, session.cost
    parts = {"energy": energy, "cost": cost, "solver": solver, "estimator": estimator}
    own = {f"callbacks.{name}": callback for name, callback in session.callbacks.items()}
    return parts | {"kept": session.kept, "noise": session.noise} | own


def _stateful(session: Session) -> dict[str, Any]:
    """The parts that say by ``state_dict`` what they remember, which the network's does not."""
    modules = set(session.network.modules())
    own = {name: part for name, part in _parts(session).items() if part not in modules}
    return {name: part for name, part in own.items() if hasattr(part, "load_state_dict")}


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
        "cuda": torch.cuda.get_rng_state_all() if session.device.type == "cuda" else [],
        "private": {name: _state_of(generator) for name, generator in private_generators(session)},
    }


def _restore_random(session: Session, states: dict[str, Any]) -> None:
    private = dict(private_generators(session))
    if private.keys() != states["private"].keys():
        raise ValueError("it has other random generators")
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if session.device.type == "cuda" and len(states["cuda"]) == torch.cuda.device_count():
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
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state() if hasattr(generator, "get_state") else generator.getstate()


def private_generators(session: Session) -> Iterator[tuple[str, Any]]:
    """The random generators that the parts of a training hold themselves, by name."""
    kinds = (torch.Generator, random.Random, np.random.Generator)
    own = {"session": session, "network": session.network, "optimizer": session.optimizer}
    for part, owner in {**own, **_parts(session)}.items():
        for name, value in sorted(getattr(owner, "__dict__", {}).items()):
            if isinstance(value, kinds):
                yield f"{part}.{name}", value
