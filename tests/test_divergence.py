"""What is not finite stops the run where it happens; what stays far from equilibrium is told."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from running import QUICK, rows, status, train, wandb_runs
from test_training import training

from eqprop.relaxation import Euler
from eqprop.run import checkpoint
from eqprop.run.errors import RunError

HOPFIELD = ("model=hopfield", "dynamics=euler_50", "trainer.log_every=100")


def poisoned(run: Any, step: int, poison: Any) -> None:
    """Let something become not finite after the relaxations of a step."""
    estimate = run.estimator.estimate

    def estimating(*args: Any) -> Any:
        found = estimate(*args)
        if run.step == step:
            poison(run, found)
        return found

    run.estimator.estimate = estimating


def nan_in_hidden_state(run: Any, found: Any) -> None:
    run.model.u[1][1, 2] = float("nan")


def infinity_in_output(run: Any, found: Any) -> None:
    found.output[0, 0] = float("inf")
    run.model.u[-1][0, 0] = float("inf")


def nan_in_a_bias_gradient(run: Any, found: Any) -> None:
    found.gradients[1][0] = float("nan")


@pytest.mark.parametrize(
    ("poison", "what"),
    [
        (nan_in_hidden_state, "the state of layer 1"),
        (infinity_in_output, "the state of layer 2"),
        (nan_in_a_bias_gradient, "the gradient of W.0.bias"),
    ],
)
def test_it_stops_at_that_step_before_the_weights_move(poison: Any, what: str) -> None:
    run = training(epochs=2, log_every=1000)
    poisoned(run, 3, poison)
    message = rf"step 3 \(epoch 1\): {what} is not finite; lower dynamics.dt \("
    with pytest.raises(RunError, match=message):
        run.fit()
    assert all(torch.isfinite(p).all() for p in run.model.parameters())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_shows_in_the_next_step(value: float) -> None:
    run = training(epochs=1, log_every=1000)
    step = run.optimizer.step

    def breaking(*args: Any, **kwargs: Any) -> Any:
        step(*args, **kwargs)
        if run.step == 2:
            run.model.W[0].weight.data[0, 0] = value

    run.optimizer.step = breaking
    with pytest.raises(RunError, match=r"step 3 \(epoch 1\): W.0.weight is not finite"):
        run.fit()


def test_a_weight_broken_by_the_last_step_of_an_epoch() -> None:
    run = training(epochs=1, log_every=1000)
    step, record = run.optimizer.step, []
    n_steps = -(-len(run.data.train) // run.data.batch_size)
    run.record = record.append

    def breaking(*args: Any, **kwargs: Any) -> Any:
        step(*args, **kwargs)
        if run.step == n_steps:
            run.model.W[1].weight.data[0, 0] = float("nan")

    run.optimizer.step = breaking
    with pytest.raises(RunError, match=r"W\.1\.weight is not finite"):
        run.fit()
    assert not any("time/train_s" in row for row in record)


def test_on_a_gpu_the_first_bad_step_is_noted_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of a GPU, with a device that only says that it is one."""
    seen: list[int] = []

    def state_sum(model: Any) -> Any:
        seen.append(1)
        return torch.Tensor._make_subclass(OnDevice, real(model))

    class OnDevice(torch.Tensor):
        is_cuda = property(lambda self: True)

        def item(self) -> Any:
            raise AssertionError("asks the device")

    run = training(epochs=1, log_every=1000)
    real = type(run.model).state_sum
    monkeypatch.setattr(type(run.model), "state_sum", state_sum)
    poisoned(run, 2, nan_in_hidden_state)
    run.health.check_weights = lambda training: training.health.settle(training)
    with pytest.raises(RunError, match=r"step 2 \(epoch 1\)"):
        run.fit()
    assert len(seen) > 2


def test_a_whole_run_that_diverges(tmp_path: Path) -> None:
    """Exit 1, one line, tracked as failed; the checkpoint before is kept, and is finite."""
    script = tmp_path / "diverge.py"
    script.write_text(
        "from eqprop.training.loop import Training\n"
        "update = Training.update\n"
        "def breaking(self, *args):\n"
        "    if self.step == 20:\n"
        "        self.solver.dt = 1e30\n"
        "    return update(self, *args)\n"
        "Training.update = breaking\n"
        "from eqprop.cli.main import run\n"
        "run()\n"
    )
    ran = train(
        *(*QUICK[:2], *HOPFIELD, "trainer.epochs=3", "hydra.run.dir=outputs/a"),
        cwd=tmp_path,
        script=script,
    )
    assert ran.code == 1
    assert ran.error.startswith(
        "error: step 20 (epoch 2): the state of layer 1 is not finite; lower"
    )
    for key in ("dynamics.dt (1e+30)", "optimizer.lr (0.001)", "estimator.beta (1)"):
        assert key in ran.error
    found = status(tmp_path / "outputs" / "a")
    assert (found["state"], found["exit_code"]) == ("failed", 1)
    assert "step 20" in found["reason"]
    last = checkpoint.read(tmp_path / "outputs" / "a" / "checkpoints" / "last.pt")
    assert last.meta["step"] == 13
    assert all(torch.isfinite(tensor).all() for tensor in last.tensors()["model"].values())
    assert rows(tmp_path / "outputs" / "a")[-1]["step"] == 13
    (tracked,) = wandb_runs(tmp_path)
    assert tracked["state"] != "finished"


# far from equilibrium


def warnings_of(run: Any, caplog: pytest.LogCaptureFixture) -> list[str]:
    with caplog.at_level(logging.WARNING, "eqprop"):
        run.fit()
    return [record.getMessage() for record in caplog.records]


def test_a_phase_that_stops_early_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    run = training("hopfield", solver=Euler(dt=0.01, n_relax=3, init="normal"), log_every=1)
    found = warnings_of(run, caplog)
    assert len(found) == 2
    for phase in ("free", "nudged"):
        (line,) = (text for text in found if f"the {phase} phase" in text)
        assert line.startswith("step 1: ")
        assert "raise dynamics.n_relax (3)" in line
        assert "dynamics.dt (0.01)" in line


def test_a_phase_that_arrives_is_not(caplog: pytest.LogCaptureFixture) -> None:
    run = training("hopfield", solver=Euler(dt=0.2, n_relax=60), log_every=1)
    assert warnings_of(run, caplog) == []
    run = training("gaussian", solver=Euler(dt=0.1, n_relax=60), log_every=1)
    assert warnings_of(run, caplog) == []


def test_looking_leaves_the_state_as_it_is() -> None:
    run = training("hopfield", log_every=1)
    seen: list[bool] = []
    warn = run.health.warn_if_far

    def watching(it: Any, estimate: Any) -> None:
        before = [layer.clone() for layer in it.model.u]
        target = it.model.c_energy.target
        warn(it, estimate)
        same = all(torch.equal(a, b) for a, b in zip(before, it.model.u, strict=True))
        seen.append(same and it.model.c_energy.target is target)

    run.health.warn_if_far = watching  # type: ignore[method-assign]
    run.fit()
    assert seen
    assert all(seen)


def test_looking_changes_nothing() -> None:
    """The residual at the start is measured on the side: numbers and states are the same."""
    found = []
    for log_every in (1, 1000):
        run = training("hopfield", log_every=log_every)
        run.fit()
        found.append([p.detach().clone() for p in run.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_row_that_is_not_finite_is_not_recorded() -> None:
    """Where states and gradients are finite and something measured is not."""
    rows: list[Any] = []
    run = training(epochs=1, log_every=1, record=rows.append)

    def infinite(it: Any, found: Any) -> None:
        found.metrics["energy/free"] = float("inf")

    poisoned(run, 2, infinite)
    with pytest.raises(RunError, match=r"step 2: energy/free is not finite; lower dynamics.dt"):
        run.fit()
    assert [row["step"] for row in rows] == [1]
