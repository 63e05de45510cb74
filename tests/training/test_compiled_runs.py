"""When a phase runs as a compiled loop, and what a run makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from running import QUICK, rows, train

from eqprop import ConditionalGaussian, RestrictedHopfield, SquaredError
from eqprop.network import Network, Nudge, State
from eqprop.relaxation import Euler, Newton, Solver, compiled
from eqprop.relaxation.compiled.loops import PAYS

SIZES = [20, 300, 8]


def network(energy: Any = RestrictedHopfield, phi: Any = "tanh", sizes: Any = SIZES) -> Network:
    torch.manual_seed(1)
    model: Network = energy(sizes, SquaredError(), 7, ["identity", *[phi] * (len(sizes) - 1)])
    return model


def other_class(model: Any, state: State) -> None:
    class Mine(type(model)):  # type: ignore[misc]
        def energy(self, u: Any) -> Any:
            return 2 * super().energy(u)

    model.__class__ = Mine


CHANGES = {
    "a clamped output": lambda model, state: state.clamp(2, torch.rand(7, 8)),
    "a free input": lambda model, state: state.release(0),
    "a class of somebody's own": other_class,
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_keeps_its_hands_off(change: str) -> None:
    """There the plain operations run, with the same result as if nothing had been compiled."""
    found = []
    for loops in (True, False):
        model, solver = network(), Euler(n_relax=3)
        if loops:
            solver.use_compiled_loops(model)
            assert solver.compiled
        state = model.new_state(7)
        state.clamp(0, torch.rand(7, 20, generator=torch.Generator().manual_seed(4)))
        torch.manual_seed(2)
        CHANGES[change](model, state)
        nudge = Nudge(SquaredError(), torch.eye(8)[:7], torch.tensor(0.5))
        assert not compiled.applies(model, state, nudge)
        solver.relax(model, state, nudge, 3)
        found.append(list(state.u))
    assert all(map(torch.equal, *found))


def deep() -> Network:
    return network(ConditionalGaussian, sizes=[4, 5, 5, 3])


def wide() -> Network:
    return network(ConditionalGaussian, sizes=[4, 5, 300])


@pytest.mark.parametrize(
    ("solver", "model"),
    [
        (Euler(adaptive=True), network()),
        (Euler(tol=1e-3), network()),
        (Euler(clip="auto"), network()),
        (Euler(), network(phi="relu")),
        (Euler(), network().double()),
        (Newton(), deep()),
        (Newton(), wide()),
    ],
)
def test_nothing_is_compiled_where_it_is_of_no_use(solver: Solver, model: Network) -> None:
    solver.use_compiled_loops(model)
    assert not solver.compiled


def test_a_wish_for_loops_that_cannot_be_met_is_told(tmp_path: Path) -> None:
    words = "device.compile=true changes nothing here"
    wish = (*QUICK, "device.compile=true", "model=hopfield")
    assert words in train(*wish, "dynamics.tol=1e-3", cwd=tmp_path).out
    assert words not in train(*wish, cwd=tmp_path).succeeded().out
    auto = train(*QUICK, "device.compile=auto", "dynamics.tol=1e-3", cwd=tmp_path)
    assert words not in auto.succeeded().out


def test_only_a_long_epoch_pays() -> None:
    model = network()  # 308 units that move
    enough = PAYS / (20 * 308)
    assert compiled.pays(model, 20, int(enough) + 1)
    assert not compiled.pays(model, 20, int(enough) - 1)


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
