"""What a checkpoint holds of a training is put back whole, or not at all."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from toys import adam, training

from eqprop.relaxation import Euler
from eqprop.run import checkpoint
from eqprop.run.checkpoint import CheckpointError
from eqprop.training import snapshot
from eqprop.training.callback import Callback
from eqprop.training.session import Session


def test_a_checkpoint_of_another_network_changes_nothing(tmp_path: Path) -> None:
    run = training(epochs=1).session
    meta, state = snapshot.capture(run)
    state["model"]["W.1.bias"] = torch.zeros(7)
    checkpoint.write(tmp_path / "x.pt", meta, state)
    other = training(epochs=1).session
    before = [p.detach().clone() for p in other.network.parameters()]
    with pytest.raises(CheckpointError, match=r"of another network: W.1.bias is \(7,\) there"):
        snapshot.restore(other, checkpoint.read(tmp_path / "x.pt"))
    after = list(other.network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("missing", ["W.0.weight", "extra"])
def test_weights_that_are_missing_or_too_many(missing: str, tmp_path: Path) -> None:
    run = training(epochs=1).session
    meta, state = snapshot.capture(run)
    weights = dict(state["model"])
    weights.pop(missing, None)
    if missing == "extra":
        weights["extra"] = torch.zeros(1)
    checkpoint.write(tmp_path / "x.pt", meta, {**state, "model": weights})
    with pytest.raises(CheckpointError, match="of another network"):
        snapshot.restore(training(epochs=1).session, checkpoint.read(tmp_path / "x.pt"))


class Cut(Exception):  # noqa: N818 - no error
    """The training was cut off here."""


class Cutting(Callback):
    def on_step(self, session: Session, samples: int) -> None:
        if session.step == 5:
            raise Cut


def middle(**changes: Any) -> Session:
    """A training that stands in the middle of its second epoch, with Adam."""
    run = training("hopfield", Cutting(), log_every=100, **{"optimizer": adam, **changes})
    with pytest.raises(Cut):
        run.fit()
    return run.session


def fresh(**changes: Any) -> Session:
    return training("hopfield", **{"optimizer": adam, **changes}).session


def written(session: Session, folder: Path) -> checkpoint.Checkpoint:
    checkpoint.write(folder / "x.pt", *snapshot.capture(session))
    return checkpoint.read(folder / "x.pt")


def test_everything_that_decides_how_it_goes_on_is_put_back(tmp_path: Path) -> None:
    """Found in the objects themselves, not only in what they compute."""
    run, other = middle(), fresh()
    run.at.seconds = 12.5
    snapshot.restore(other, written(run, tmp_path))
    assert (other.step, other.at.epoch, other.at.batches) == (5, 2, 2)
    assert other.at.seconds == 12.5
    assert int(other.at.correct) == int(run.at.correct)
    assert (other.best, other.last) == (run.best, run.last) != ({}, {})
    for ours, theirs in zip(other.state(10).u, run.state(10).u, strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(other.network.parameters(), run.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        mine, yours = other.optimizer.state[ours], run.optimizer.state[theirs]
        assert all(torch.equal(mine[key], yours[key]) for key in yours)


class Counting(Euler):
    """A solver that remembers something, and says so as torch's modules do."""

    seen = 0

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


def test_a_solver_that_remembers_gets_its_memory_back(tmp_path: Path) -> None:
    run, other = middle(solver=Counting(n_relax=3)), fresh(solver=Counting(n_relax=3))
    run.solver.seen = 7
    snapshot.restore(other, written(run, tmp_path))
    assert other.solver.seen == 7
    with pytest.raises(CheckpointError, match="another state"):
        snapshot.restore(fresh(), written(run, tmp_path))


def test_what_is_loaded_last_are_the_random_states(tmp_path: Path) -> None:
    """An optimizer that draws while it is loaded disturbs nothing."""

    class Drawing(torch.optim.Adam):
        def load_state_dict(self, state: Any) -> None:
            super().load_state_dict(state)
            torch.rand(3), random.random(), np.random.rand()

    run, other = middle(), fresh(optimizer=Drawing)
    found = written(run, tmp_path)
    drawn = [torch.rand(()).item(), random.random(), np.random.rand()]
    snapshot.restore(other, found)
    assert [torch.rand(()).item(), random.random(), np.random.rand()] == drawn


def test_the_generators_of_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """With devices that only say that they are there."""
    states = [torch.tensor([1], dtype=torch.uint8), torch.tensor([2], dtype=torch.uint8)]
    given: list[Any] = []
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", given.extend)
    run: Any = training().session
    run.data = SimpleNamespace(train=SimpleNamespace(device=torch.device("cuda")))
    found = snapshot.random_states(run)
    assert found["cuda"] == states
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    snapshot._restore_random(run, found)
    assert given == states
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # another machine
    snapshot._restore_random(run, found)
    assert given == states


def test_other_generators_than_were_saved(tmp_path: Path) -> None:
    run = middle()
    run.solver.own = random.Random(3)
    found = written(run, tmp_path)
    with pytest.raises(CheckpointError, match="other random generators"):
        snapshot.restore(fresh(), found)


def test_how_another_device_computed_the_same_is_not_loaded(tmp_path: Path) -> None:
    run, other = middle(), fresh()
    run.optimizer.param_groups[0].update(fused=True, lr=0.5)
    snapshot.restore(other, written(run, tmp_path))
    assert not other.optimizer.param_groups[0]["fused"]
    assert other.optimizer.param_groups[0]["lr"] == 0.5


def test_an_optimizer_with_other_groups(tmp_path: Path) -> None:
    run, other = middle(), fresh(optimizer=lambda ps: adam([{"params": [p]} for p in ps]))
    before = [p.detach().clone() for p in other.network.parameters()]
    with pytest.raises(CheckpointError, match=r"does not fit this run .*parameter groups"):
        snapshot.restore(other, written(run, tmp_path))
    after = list(other.network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("missing", ["optimizer", "random", "u"])
def test_a_state_that_is_not_whole_is_one_line(missing: str, tmp_path: Path) -> None:
    meta, state = snapshot.capture(middle())
    del state[missing]
    checkpoint.write(tmp_path / "x.pt", meta, state)
    with pytest.raises(CheckpointError, match=f"does not fit this run .*{missing}"):
        snapshot.restore(fresh(), checkpoint.read(tmp_path / "x.pt"))


def test_load_compares_shapes_too(tmp_path: Path) -> None:
    run = middle()
    meta, state = snapshot.capture(run)
    state["model"]["W.0.bias"] = torch.zeros(3)
    checkpoint.write(tmp_path / "x.pt", meta, state)
    with pytest.raises(CheckpointError, match=r"of another network: W.0.bias is \(3,\) there"):
        snapshot.restore_weights(fresh().network, checkpoint.read(tmp_path / "x.pt"))
