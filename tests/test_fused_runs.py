"""When a phase runs as a compiled loop, and what a run makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from looped import network, relaxed
from running import QUICK, rows, train

from eqprop import ConditionalGaussian, SquaredError
from eqprop.relaxation import Euler, Newton, fused


def other_class(model):
    class Mine(type(model)):
        def energy(self, u):
            return 2 * super().energy(u)

    model.__class__ = Mine


CHANGES = {
    "a clamped output": lambda model: model.clamp_layer(2, model.u[2].clone()),
    "a free input": lambda model: model.release_layer(0),
    "a class of somebody's own": other_class,
    "double precision": lambda model: model.double(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_keeps_its_hands_off(change) -> None:
    """There the plain operations run, with the same result as if nothing had been compiled."""
    model, ours = network(), Newton()
    ours.compile_for(model)
    CHANGES[change](model)
    assert not fused.applies(model)
    for found, wanted in zip(relaxed(ours, model), relaxed(Newton(), model), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("solver", "fit"),
    [
        (Euler(adaptive=True), network()),
        (Euler(tol=1e-3), network()),
        (Euler(), network(phi=("relu", "relu"))),
        (Newton(), ConditionalGaussian([4, 5, 5, 3], SquaredError(1.0), 2, ["tanh"] * 3)),
        (Newton(), ConditionalGaussian([4, 5, 300], SquaredError(1.0), 2, ["tanh"] * 2)),
    ],
)
def test_nothing_is_compiled_where_it_is_of_no_use(solver, fit) -> None:
    solver.compile_for(fit)
    assert not solver.compiled


def test_a_wish_for_loops_that_cannot_be_met_is_told(caplog: pytest.LogCaptureFixture) -> None:
    for wanted in ("auto", False):
        fused.prepare(Euler(tol=1e-3), network(), wanted, 10**9)
    fused.prepare(Euler(), network(), True, 1)
    assert "changes nothing" not in caplog.text
    fused.prepare(Euler(tol=1e-3), network(), True, 1)
    assert "device.compile=true changes nothing here" in caplog.text


def test_only_a_long_epoch_pays() -> None:
    model = network()  # 308 units that move
    solver = Euler(n_relax=10, n_nudged=10)
    enough = fused.PAYS / (20 * 308)
    assert fused.pays(solver, model, int(enough) + 1)
    assert not fused.pays(solver, model, int(enough) - 1)
    gaussian = network(ConditionalGaussian)  # its free phase takes no steps
    assert not fused.pays(solver, gaussian, int(enough * 1.9))
    assert fused.pays(solver, gaussian, int(enough * 2) + 1)


@pytest.mark.parametrize("model", ["gaussian", "hopfield"])
def test_a_run_learns_the_same(model: str, tmp_path: Path) -> None:
    """Rounding apart: the accuracies of two short runs agree."""
    both = []
    for compile_ in ("true", "false"):
        folder = f"hydra.run.dir={tmp_path / compile_}"
        overrides = ("dataset.limit=500", "trainer.epochs=2", "trainer.log_every=5")
        ran = train(
            *QUICK, *overrides, f"model={model}", f"device.compile={compile_}", folder, cwd=tmp_path
        )
        ran.succeeded()
        both.append(rows(tmp_path / compile_))
    assert len(both[0]) == len(both[1]) > 2
    for mine, plain in zip(*both, strict=True):
        assert mine.keys() == plain.keys()
        for name in mine.keys() - {"time/train_s", "time/eval_s", "throughput/examples_per_s"}:
            slack = 0.02 if name.startswith("accuracy") else 0.0
            assert mine[name] == pytest.approx(plain[name], rel=2e-3, abs=slack + 1e-4), name
