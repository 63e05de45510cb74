"""The captured step against the plain one, by a stand-in for CUDA graphs, and on pretended CUDA."""

from __future__ import annotations

import copy
import itertools
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from running import untimed
from tape import HostWaitsError, Tape
from test_training import recorded, splits, training

from eqprop.data import epoch_order
from eqprop.estimator import CenteredEquilibriumPropagation, EquilibriumPropagation
from eqprop.relaxation import Euler, Newton, Solver
from eqprop.run import checkpoint
from eqprop.run.errors import RunError
from eqprop.training import snapshot
from eqprop.training.health import Health
from eqprop.training.keeper import Keeper
from eqprop.training.loop import Row, Training
from eqprop.training.step import CapturedStep

SOLVERS: dict[str, Callable[[], Solver]] = {
    "euler": lambda: Euler(dt=0.1, n_relax=5, init="normal"),
    "adaptive": lambda: Euler(dt=0.1, n_relax=5, init="normal", adaptive=True),
    "newton": Newton,
}


def made(kind: str, method: str, tape: Tape | None, **changes: Any) -> Training:
    """Three epochs of 12 batches and a smaller one; Adam, as the command has it."""
    parts: dict[str, Any] = {"solver": SOLVERS[method](), "epochs": 3, "log_every": 7}
    run = training(kind, **{**parts, "data": splits(n_train=123), **changes})
    run.optimizer = torch.optim.Adam(run.model.parameters(), lr=0.01, fused=True)
    if tape is not None:
        run.take_step, run.health = CapturedStep(tape), Health(deferred=True)
    return run


def weights(run: Training) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in run.model.parameters()]


def fitted(run: Training) -> list[Row]:
    rows = recorded(run)
    return untimed(rows)


@pytest.mark.parametrize("kind", ["gaussian", "hopfield"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("one_sided", [True, False], ids=["ep", "ep_centered"])
def test_both_paths_give_the_same_numbers(kind: str, solver: str, one_sided: bool) -> None:
    estimator = EquilibriumPropagation if one_sided else CenteredEquilibriumPropagation
    tape = Tape()
    plain = made(kind, solver, None, estimator=estimator(0.5))
    captured = made(kind, solver, tape, estimator=estimator(0.5))
    assert fitted(plain) == fitted(captured)
    assert all(map(torch.equal, weights(plain), weights(captured)))
    moments = [state["step"] for state in captured.optimizer.state.values()]
    assert [int(step) for step in moments] == [39] * len(moments), "it counted every step"
    # once before the first evaluation needs larger buffers, once after
    assert tape.captured == 2
    # all but the 5 log lines, the 3 smaller batches and what warms up
    assert tape.replayed == 39 - 5 - 3 - tape.warmed


def test_nothing_moves_between_two_replays() -> None:
    run = made("hopfield", "newton", Tape())
    run.train_epoch()
    x, y = run.data.train.x[:10], run.data.train.y[:10]
    places = []
    for _ in range(3):
        estimate, correct = run.take_step(run, x, y, False)
        tensors = [*run.model.u, *run.model.parameters(), *estimate.gradients, estimate.output]
        tensors += [p.grad for p in run.model.parameters() if p.grad is not None]
        tensors += [t for state in run.optimizer.state.values() for t in state.values()]
        places.append([tensor.data_ptr() for tensor in [*tensors, correct]])
    assert places[0] == places[1] == places[2]


def test_a_step_that_asks_the_device_is_refused() -> None:
    run = made("hopfield", "newton", Tape(), solver=Newton(tol=1e-9))
    with pytest.raises(HostWaitsError, match="_local_scalar_dense"):
        run.fit()


def test_the_stand_in_sees_a_number_that_python_counts() -> None:
    """The test of the test: what Python counts in a step stands still in a replay."""

    class Counting(EquilibriumPropagation):
        def run_phases(self, *args: Any) -> Any:
            estimate = super().run_phases(*args)
            for gradient in estimate.gradients:
                gradient.mul_(next(factors))
            return estimate

    results = []
    for tape in (None, Tape()):
        factors = itertools.count(1)
        run = made("gaussian", "newton", tape, estimator=Counting(0.5), epochs=1)
        run.fit()
        results.append(weights(run))
    assert not all(map(torch.equal, *results))


@pytest.mark.parametrize("change", ["lr", "dt", "loaded"])
def test_a_change_is_captured_anew(change: str) -> None:
    def changed(tape: Tape | None) -> list[torch.Tensor]:
        run = made("hopfield", "euler", tape)
        run.train_epoch()
        if change == "lr":
            run.optimizer.param_groups[0]["lr"] = 0.1
        elif change == "dt":
            run.solver.dt = 0.05
        else:
            run.optimizer.load_state_dict(copy.deepcopy(run.optimizer.state_dict()))
        run.at = type(run.at)(2)
        run.train_epoch()
        return weights(run)

    tape = Tape()
    assert all(map(torch.equal, changed(None), changed(tape)))
    assert tape.captured == 2


class Saving(Keeper):
    """Keeps what would be saved in the middle of epoch 2, as a run on a GPU would have it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def after_step(self, training: Training) -> None:
        if training.step == 20:
            meta, state = snapshot.capture(training)
            state["optimizer"] = copy.deepcopy(state["optimizer"])
            for group in state["optimizer"]["param_groups"]:
                group["capturable"] = True
            checkpoint.write(self.path, meta, state)


@pytest.mark.parametrize("captured", [False, True], ids=["plain", "captured"])
def test_going_on_from_a_captured_run_s_checkpoint(captured: bool, tmp_path: Path) -> None:
    whole = made("hopfield", "euler", Tape(), keeper=Saving(tmp_path / "20.pt"))
    expected = fitted(whole)
    rest = made("hopfield", "euler", Tape() if captured else None)
    rest.fit()  # captured already: what is loaded must reach the graph
    snapshot.restore(rest, checkpoint.read(tmp_path / "20.pt"))
    assert rest.optimizer.param_groups[0]["capturable"] is False, "how is this machine's affair"
    found = fitted(rest)
    assert found == expected[-len(found) :]
    assert all(map(torch.equal, weights(whole), weights(rest)))


def test_the_first_step_that_is_not_finite_is_named() -> None:
    run = made("gaussian", "euler", Tape(), epochs=1, log_every=10**6)
    run.data.train.x[:] = torch.where(torch.arange(123).unsqueeze(1) == 0, math.inf, 1.0)
    order = [i for i, (x, _) in enumerate(_batches(run), 1) if not torch.isfinite(x).all()]
    with pytest.raises(RunError, match=f"step {order[0]} "):
        run.fit()


def _batches(run: Training) -> Any:
    return run.data.train.batches(10, epoch_order(123, run.seed, 1))


@pytest.mark.parametrize("strict", [True, False])
def test_what_cannot_be_captured(strict: bool, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Tape):
        def capture(self, step: Any, generators: Any) -> Any:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")

    run = made("gaussian", "newton", None, epochs=1)
    expected = fitted(run)
    other = made("gaussian", "newton", None, epochs=1)
    other.take_step, other.health = CapturedStep(Failing(), strict), Health(deferred=True)
    if strict:
        with pytest.raises(RunError, match=r"device\.cuda_graph=true: .*capturing.*=false"):
            other.fit()
        return
    with caplog.at_level(logging.WARNING):
        assert fitted(other) == expected
    assert len([r for r in caplog.records if "not captured" in r.getMessage()]) == 1
