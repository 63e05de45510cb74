"""The captured step against the plain one, by a stand-in for CUDA graphs, and on pretended CUDA."""

from __future__ import annotations

import copy
import itertools
import logging
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from running import untimed
from tape import Tape
from toys import recorded, same, splits, training, weights

from eqprop.data import epoch_order
from eqprop.estimator import (
    BackpropThroughTime,
    CenteredEquilibriumPropagation,
    ContinualEP,
    ContrastiveHebbianLearning,
    CoupledLearning,
    EquilibriumPropagation,
    Estimate,
    Estimator,
    ImplicitDifferentiation,
)
from eqprop.relaxation import Anderson, Euler, Newton, Solver
from eqprop.run import checkpoint
from eqprop.run.errors import RunError
from eqprop.training import snapshot
from eqprop.training.callback import Callback
from eqprop.training.divergence_guard import DivergenceGuard
from eqprop.training.loop import Training
from eqprop.training.session import Position, Row, Session
from eqprop.training.step import Batch, CapturedStep

SOLVERS: dict[str, Callable[[], Solver]] = {
    "euler": lambda: Euler(dt=0.1, n_relax=5, init="normal"),
    "adaptive": lambda: Euler(dt=0.1, n_relax=5, init="normal", adaptive=True),
    "clipped": lambda: Euler(dt=0.1, n_relax=5, init="normal", clip="auto"),
    "newton": Newton,
}


def fused_adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01, fused=True)


def made(
    kind: str, how: str, tape: Tape | None, *callbacks: Callback, strict: bool = True, **more: Any
) -> Training:
    """Three epochs of 12 batches and a smaller one; Adam, as the command has it."""
    parts: dict[str, Any] = {"solver": SOLVERS[how](), "epochs": 3, "log_every": 7}
    parts |= {"data": splits(n_train=123), "optimizer": fused_adam}
    if tape is not None:
        callbacks = (DivergenceGuard(deferred=True), *callbacks)
        parts["take_step"] = CapturedStep(tape, strict)
    return training(kind, *callbacks, **{**parts, **more})


def begun(run: Training) -> Training:
    for callback in run.callbacks:
        callback.on_start(run.session)
    run.train_epoch()
    return run


def fitted(run: Training) -> list[Row]:
    return untimed(recorded(run))


@pytest.mark.parametrize("kind", ["gaussian", "hopfield"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("one_sided", [True, False], ids=["ep", "ep_centered"])
def test_both_paths_give_the_same_numbers(kind: str, solver: str, one_sided: bool) -> None:
    estimator = EquilibriumPropagation if one_sided else CenteredEquilibriumPropagation
    tape = Tape()
    plain = made(kind, solver, None, estimator=estimator(0.5))
    captured = made(kind, solver, tape, estimator=estimator(0.5))
    assert fitted(plain) == fitted(captured)
    assert same(weights(plain), weights(captured))
    moments = [state["step"] for state in captured.session.optimizer.state.values()]
    assert [int(step) for step in moments] == [39] * len(moments), "it counted every step"
    assert tape.captured == 1, "evaluating moves none of the training's buffers"
    # all but the 5 log lines, the 3 smaller batches and what warms up
    assert tape.replayed == 39 - 5 - 3 - tape.warmed


OTHERS: dict[str, Callable[[], Estimator]] = {
    "coupled": lambda: CoupledLearning(0.5, "centered"),
    "contrastive": ContrastiveHebbianLearning,
    "continual": lambda: ContinualEP(0.5),
}


@pytest.mark.parametrize("kind", ["gaussian", "hopfield"])
@pytest.mark.parametrize("solver", ["euler", "newton"])
@pytest.mark.parametrize("option", OTHERS)
def test_so_do_clamped_outputs_and_weights_that_move_within_a_step(
    kind: str, solver: str, option: str
) -> None:
    tape, clip = Tape(), {"clip_norm": 0.5}
    plain = made(kind, solver, None, estimator=OTHERS[option](), **clip)
    captured = made(kind, solver, tape, estimator=OTHERS[option](), **clip)
    assert fitted(plain) == fitted(captured)
    assert same(weights(plain), weights(captured))
    assert tape.captured == 1
    assert tape.replayed == 39 - 5 - 3 - tape.warmed


@pytest.mark.parametrize("kind", ["gaussian", "hopfield"])
@pytest.mark.parametrize("solver", ["euler", "clipped", "newton"])
def test_so_do_those_of_backpropagation_through_time(kind: str, solver: str) -> None:
    tape, found = Tape(), []
    for backend in (None, tape):
        run = made(kind, solver, backend, estimator=BackpropThroughTime(3), epochs=2)
        found.append((fitted(run), weights(run)))
    assert found[0][0] == found[1][0]
    assert same(found[0][1], found[1][1])
    assert tape.captured == 1


def test_nothing_moves_between_two_replays() -> None:
    run = begun(made("hopfield", "newton", Tape()))
    session, network = run.session, run.session.network
    x, y = session.data.train.x[:10], session.data.train.y[:10]
    places = []
    for _ in range(3):
        estimate, *sums = run.take_step(session, run.callbacks, Batch(x, y))
        tensors = [*session.state(10).u, *network.parameters(), estimate.output, *sums]
        tensors += [*estimate.gradients]
        tensors += [p.grad for p in network.parameters() if p.grad is not None]
        tensors += [t for state in session.optimizer.state.values() for t in state.values()]
        places.append([tensor.data_ptr() for tensor in tensors])
    assert places[0] == places[1] == places[2]


def test_the_stand_in_sees_a_number_that_python_counts() -> None:
    """The test of the test: what Python counts in a step stands still in a replay."""

    class Counting(EquilibriumPropagation):
        def estimate(self, *args: Any, **options: Any) -> Estimate:
            found = super().estimate(*args, **options)
            for gradient in found.gradients:
                gradient.mul_(next(factors))
            return found

        def capture_obstacle(self) -> None:
            return None  # which is not true

    results = []
    for tape in (None, Tape()):
        factors = itertools.count(1)
        run = made("gaussian", "newton", tape, estimator=Counting(0.5), epochs=1)
        run.fit()
        results.append(weights(run))
    assert not same(*results)


# what cannot be captured says so, and nothing is frozen


class Random(EquilibriumPropagation):
    """Draws the strength of each batch on the host, in its own estimate."""

    def estimate(self, *args: Any, **options: Any) -> Estimate:
        self.phases[1] = (0.5 + random.random(), 1.0 / 0.5)
        return super().estimate(*args, **options)


class Jittered(Euler):
    """Draws the size of each of its steps on the host."""

    def step(self, *args: Any) -> None:
        step, self.dt = self.dt, self.dt * random.random()
        super().step(*args)
        self.dt = step


OBSTACLES: dict[str, dict[str, Any]] = {
    "Random": {"estimator": Random(0.5)},
    "Jittered": {"solver": Jittered(n_relax=5)},
    "dynamics.tol": {"solver": Newton(tol=1e-9)},
    "anderson": {"solver": Anderson(n_relax=5)},
    "conjugate gradients": {"estimator": ImplicitDifferentiation()},
}


@pytest.mark.parametrize("what", OBSTACLES)
def test_what_cannot_be_captured_says_so(what: str, caplog: pytest.LogCaptureFixture) -> None:
    parts = {"epochs": 1, **OBSTACLES[what]}
    with pytest.raises(RunError, match=rf"device\.cuda_graph=true: .*{what}.*=false"):
        made("hopfield", "newton", Tape(), **parts).fit()
    found, tape = [], Tape()
    for backend in (None, tape):
        random.seed(3)
        run = made("hopfield", "newton", backend, strict=False, **parts)
        found.append((fitted(run), weights(run)))
    (rows, parameters), (ours, our_parameters) = found
    assert ours == rows
    assert same(our_parameters, parameters)
    assert tape.captured == 0
    (line,) = (r.getMessage() for r in caplog.records if "not captured" in r.getMessage())
    assert what in line


@pytest.mark.parametrize("strict", [True, False])
def test_what_the_device_refuses_to_capture(strict: bool, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Tape):
        def capture(self, step: Any, generators: Any) -> Any:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")

    expected = fitted(made("gaussian", "newton", None, epochs=1))
    run = made("gaussian", "newton", Failing(), strict=strict, epochs=1)
    if strict:
        with pytest.raises(RunError, match=r"device\.cuda_graph=true: .*capturing.*=false"):
            run.fit()
        return
    with caplog.at_level(logging.WARNING):
        assert fitted(run) == expected
    assert len([r for r in caplog.records if "not captured" in r.getMessage()]) == 1


# what changes between two steps


@pytest.mark.parametrize("change", ["lr", "dt"])
def test_a_change_is_captured_anew(change: str) -> None:
    def changed(tape: Tape | None) -> list[torch.Tensor]:
        run = begun(made("hopfield", "euler", tape))
        if change == "lr":
            run.session.optimizer.param_groups[0]["lr"] = 0.1
        else:
            run.session.solver.dt = 0.05
        run.session.at = Position(2)
        run.train_epoch()
        return weights(run)

    tape = Tape()
    assert same(changed(None), changed(tape))
    assert tape.captured == 2


class Saving(Callback):
    """Keeps what would be saved in the middle of epoch 2, as a run on a GPU would have it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_step(self, session: Session, samples: int) -> None:
        if session.step == 20:
            meta, state = snapshot.capture(session)
            state["optimizer"] = copy.deepcopy(state["optimizer"])
            for group in state["optimizer"]["param_groups"]:
                group["capturable"] = True
            checkpoint.write(self.path, meta, state)


@pytest.mark.parametrize("captured", [False, True], ids=["plain", "captured"])
def test_going_on_from_a_captured_run_s_checkpoint(captured: bool, tmp_path: Path) -> None:
    whole = made("hopfield", "euler", Tape(), Saving(tmp_path / "20.pt"))
    expected = fitted(whole)
    rest = made("hopfield", "euler", Tape() if captured else None)
    snapshot.restore(rest.session, checkpoint.read(tmp_path / "20.pt"))
    groups = rest.session.optimizer.param_groups
    assert groups[0]["capturable"] is False, "how is this machine's affair"
    found = fitted(rest)
    assert found == expected[-len(found) :]
    assert same(weights(whole), weights(rest))


def test_the_first_step_that_is_not_finite_is_named() -> None:
    run = made("gaussian", "euler", Tape(), epochs=1, log_every=10**6)
    run.session.data.train.x[:] = torch.where(torch.arange(123).unsqueeze(1) == 0, math.inf, 1.0)
    order = [i for i, (x, _) in enumerate(_batches(run), 1) if not torch.isfinite(x).all()]
    with pytest.raises(RunError, match=f"step {order[0]} "):
        run.fit()


def _batches(run: Training) -> Any:
    return run.session.data.train.batches(10, epoch_order(123, run.session.seed, 1))
