"""``diagnostics.gradient_every``: right by another way of computing it, and nobody notices."""

from __future__ import annotations

import logging
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from interrupted import RUN, alone, killed, learnt
from running import QUICK, rows, train, untimed
from tape import Tape
from test_captured_step import fitted, made
from torch import Tensor
from toys import recorded, same, training, weights

from eqprop.estimator import CenteredEquilibriumPropagation, Contrast, Estimate
from eqprop.network import Network, State
from eqprop.relaxation import Euler, Newton
from eqprop.training import snapshot
from eqprop.training.callback import Callback
from eqprop.training.gradient_diagnostics import GradientDiagnostics
from eqprop.training.session import Row, Session

NAMES = ("W.0.weight", "W.0.bias", "W.1.weight", "W.1.bias")


def compared(found: list[Row]) -> dict[int, Row]:
    """What was logged of the gradients, by step."""
    of = {row["step"]: {k: v for k, v in row.items() if "gradient_a" in k or "gradient_r" in k}
          for row in found if "accuracy/train" not in row}  # fmt: skip
    return {int(step): numbers for step, numbers in of.items() if numbers}


class Watching(Callback):
    """Keeps the batch, the weights before the step, and the step's gradient."""

    def __init__(self) -> None:
        self.seen: dict[int, Any] = {}

    def before_step(self, session: Session, x: Tensor, y: Tensor) -> bool:
        held = [p.detach().clone() for p in session.network.parameters()]
        self.seen[session.step] = x.clone(), y.clone(), held
        return False

    def on_gradient(self, session: Session, estimate: Estimate) -> None:
        self.seen[session.step] += ([g.clone() for g in estimate.gradients],)


def backprop(x: Tensor, y: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """The gradient of the toy's cost by torch's own layers: its equilibrium is a forward pass."""
    W0, b0, W1, b1 = (p.requires_grad_() for p in parameters)
    hidden = torch.nn.functional.linear(x, W0, b0)
    output = torch.nn.functional.linear(hidden.tanh(), W1, b1)
    loss = torch.nn.functional.cross_entropy(output, y)
    return list(torch.autograd.grad(loss, parameters))


@pytest.mark.parametrize("log_every", [1, 2, 1000])
def test_it_is_the_cosine_to_the_gradient_before_the_step(log_every: int) -> None:
    watching = Watching()
    run = training("gaussian", watching, GradientDiagnostics(3), log_every=log_every)
    found = compared(recorded(run))
    assert list(found) == [3, 6], "of six steps; the sixth is a smaller batch"
    for step, numbers in found.items():
        x, y, held, gradients = watching.seen[step]
        for name, ours, theirs in zip(NAMES, gradients, backprop(x, y, held), strict=True):
            cosine = torch.cosine_similarity(ours.flatten(), theirs.flatten(), 0)
            assert numbers[f"gradient_alignment/{name}"] == pytest.approx(float(cosine), abs=1e-6)
            ratio = float(ours.norm() / theirs.norm())
            assert numbers[f"gradient_ratio/{name}"] == pytest.approx(ratio, rel=1e-5)
    assert len(numbers) == 2 * len(NAMES)


@pytest.mark.parametrize("init", ["normal", "previous", "per_example"])
def test_the_reference_starts_where_the_step_does(init: str) -> None:
    """After so few steps, an equilibrium that began elsewhere would be another one."""
    parts = {"solver": Euler(dt=0.05, n_relax=2, init=init), "epochs": 3}
    outputs: dict[int, list[Tensor]] = {}

    class Outputs(Callback):
        def on_gradient(self, session: Session, estimate: Estimate) -> None:
            outputs.setdefault(session.step, []).append(estimate.output.clone())

    comparing = GradientDiagnostics(1)
    solved, inner = [], comparing.reference.estimate

    def noted(*arguments: Any) -> Estimate:
        solved.append(inner(*arguments))
        return solved[-1]

    comparing.reference.estimate = noted  # type: ignore[method-assign,assignment]
    training("hopfield", comparing, Outputs(), **parts).fit()
    assert len(solved) == 9
    for step, reference in enumerate(solved, start=1):
        assert torch.equal(reference.output, outputs[step][0])


class Wild(Euler):
    """Draws from every generator there is."""

    def __init__(self, init: str) -> None:
        super().__init__(dt=0.1, n_relax=15, init=init)
        self.mine = np.random.default_rng(5)

    def advance(self, network: Network, state: State, *args: Any) -> None:
        noise = random.random() + np.random.rand() + self.mine.random() + float(torch.rand(()))
        state.u[-1].add_(1e-3 * noise)
        state.moved(2)
        super().advance(network, state, *args)


@pytest.mark.parametrize("kind", ["gaussian", "hopfield"])
@pytest.mark.parametrize("init", ["normal", "previous", "per_example"])
def test_looking_changes_no_weight_and_no_random_number(kind: str, init: str) -> None:
    found = []
    for watching in ([], [GradientDiagnostics(1)]):
        torch.manual_seed(1), np.random.seed(2), random.seed(3)
        run = training(kind, *watching, solver=Wild(init), epochs=3)
        seen = [
            {k: v for k, v in row.items() if not k.startswith(("gradient_a", "gradient_r"))}
            for row in untimed(recorded(run))
        ]
        meta, state = snapshot.capture(run.session)
        del meta["seconds"]
        layers = [layer.clone() for layer in run.session.state(10).u]
        found.append((seen, meta, layers, weights(run), state["random"]))
    (rows, meta, u, w, drawn), (their_rows, their_meta, their_u, their_w, their_drawn) = found
    assert rows == their_rows
    assert meta == their_meta
    assert same(u, their_u)
    assert same(w, their_w)
    for name in ("python", "numpy"):
        assert drawn[name] == their_drawn[name]
    assert torch.equal(drawn["torch"], their_drawn["torch"])
    private, theirs = drawn["private"], their_drawn["private"]
    assert private["solver.mine"] == theirs["solver.mine"]
    assert torch.equal(private["session.generator"], theirs["session.generator"])


@pytest.mark.parametrize("kind", ["gaussian", "hopfield"])
@pytest.mark.parametrize("solver", ["euler", "newton"])
def test_a_captured_training_is_compared_as_a_plain_one(kind: str, solver: str) -> None:
    """Steps that are compared are not replayed; the others are, and know nothing of them."""
    parts = {"estimator": CenteredEquilibriumPropagation(0.5)}
    tape = Tape()
    plain = made(kind, solver, None, GradientDiagnostics(5), **parts)
    captured = made(kind, solver, tape, GradientDiagnostics(5), **parts)
    unseen = made(kind, solver, Tape(), **parts)
    found = fitted(plain)
    assert found == fitted(captured)
    fitted(unseen)
    assert same(weights(captured), weights(unseen))
    assert same(weights(captured), weights(plain))
    assert list(compared(found)) == list(range(5, 40, 5))
    taken = {step for step in range(1, 40) if step % 7 == 0 or step % 5 == 0 or step % 13 == 0}
    assert tape.replayed == 39 - len(taken) - tape.warmed


def test_a_gradient_of_zero_is_told_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    nothing = Contrast([(0.0, 1.0), (0.5, 0.0)])
    run = training("gaussian", GradientDiagnostics(2), estimator=nothing)
    found = compared(recorded(run))
    assert set(found[2]) == {f"gradient_ratio/{name}" for name in NAMES}
    assert set(found[2].values()) == {0.0}
    lines = [r.getMessage() for r in caplog.records if "no alignment" in r.getMessage()]
    assert lines == [f"step 2: no alignment of {name}: the gradient is zero" for name in NAMES]


def test_what_cannot_be_compared_does_not_end_a_run(caplog: pytest.LogCaptureFixture) -> None:
    comparing = GradientDiagnostics(2)

    def broken(*arguments: Any) -> Estimate:
        raise RuntimeError("no second\nderivative")

    comparing.reference.estimate = broken  # type: ignore[method-assign,assignment]
    found = recorded(training("hopfield", comparing))
    assert compared(found) == {}
    (line,) = (r.getMessage() for r in caplog.records if "not compared" in r.getMessage())
    assert "no second derivative" in line
    assert "\n" not in line


# by the command


def test_it_goes_on_after_a_kill(tmp_path: Path) -> None:
    key = "diagnostics.gradient_every=5"
    command = (*RUN, "model=hopfield", key, "checkpoint.every_steps=4", "hydra.run.dir=a")
    assert killed(20, *command, cwd=tmp_path).code == -signal.SIGKILL
    train("resume=a", cwd=tmp_path).succeeded()
    assert learnt(tmp_path / "a") == learnt(alone("model=hopfield", key))
    found = compared(rows(tmp_path / "a"))
    assert list(found) == [5, 10, 15, 20, 25, 30, 35]
    assert all(0.9 < v < 1.0 for row in found.values() for k, v in row.items() if "alignment" in k)


def test_a_run_is_the_same_with_and_without(tmp_path: Path) -> None:
    """The default solver, compiled, in float32: the same bytes, and it may change on a resume."""
    key = "diagnostics.gradient_every=5"
    for folder, more in (("a", ()), ("b", (key,))):
        train(*RUN, "device.compile=true", *more, f"hydra.run.dir={folder}", cwd=tmp_path)
    plain, seen = (learnt(tmp_path / folder) for folder in "ab")
    assert plain[0] == seen[0]
    assert plain[2] == seen[2]
    train("resume=a", key, "trainer.epochs=4", cwd=tmp_path).succeeded()
    assert list(compared(rows(tmp_path / "a"))) == [40, 45, 50]


@pytest.mark.parametrize("value", ["0", "2.5", "often"])
def test_a_wrong_number_is_one_line(value: str, tmp_path: Path) -> None:
    ran = train(*QUICK, f"diagnostics.gradient_every={value}", cwd=tmp_path)
    assert ran.code == 2
    assert "diagnostics.gradient_every" in ran.error
    assert ran.folders == []


def test_too_few_steps_are_seen() -> None:
    """What the numbers are for."""
    run = training("hopfield", GradientDiagnostics(2), solver=Newton(n_relax=50, n_nudged=1))
    few = compared(recorded(run))
    run = training("hopfield", GradientDiagnostics(2), solver=Newton(n_relax=50, n_nudged=50))
    many = compared(recorded(run))
    name = "gradient_ratio/W.0.weight"
    assert abs(many[2][name] - 1) < abs(few[2][name] - 1)
