"""debug=overfit, limit and profile: what each is for, and that profiling changes no number."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from running import train, untimed

MNIST5K = ("model.hidden=[100]", "tracking=none")


@pytest.mark.parametrize("model", ["gaussian", "hopfield"])
def test_overfit_learns_one_batch_by_heart(model: str, tmp_path: Path) -> None:
    arguments = ("debug=overfit", f"model={model}", "trainer.epochs=300", *MNIST5K)
    ran = train(*arguments, cwd=tmp_path).succeeded()
    assert ran.epochs[-1]["accuracy/train"] == 1.0
    assert ran.epochs[-1]["step"] == 300, "one batch an epoch"


def test_limit_goes_through_two_batches_of_everything(tmp_path: Path) -> None:
    arguments = ("debug=limit", "trainer.eval_batch_size=40", *MNIST5K)
    ran = train(*arguments, cwd=tmp_path).succeeded()
    assert [row["step"] for row in ran.rows if "gradient_norm/W.0.weight" in row] == [1, 2, 3, 4]
    # accuracies are whole numbers of 2 x 50 training samples, of 2 x 40 others
    for row in ran.epochs:
        assert (row["accuracy/train"] * 100) % 1 == pytest.approx(0, abs=1e-9)
        assert (row["accuracy/validation"] * 80) % 1 == pytest.approx(0, abs=1e-9)
    assert (ran.epochs[-1]["accuracy/test"] * 80) % 1 == pytest.approx(0, abs=1e-9)
    assert len(ran.epochs) == 2


def test_profile_traces_steps_and_changes_no_number(tmp_path: Path) -> None:
    arguments = ("trainer.epochs=1", "trainer.log_every=10", "model=hopfield", *MNIST5K)
    for name in ("plain", "traced"):
        (tmp_path / name).mkdir()
    plain = train(*arguments, cwd=tmp_path / "plain")
    traced = train("debug=profile", *arguments, cwd=tmp_path / "traced").succeeded()
    assert untimed(plain.succeeded().rows) == untimed(traced.rows)
    trace = json.loads((traced.folder / "profile.json").read_text())
    names = Counter(event["name"] for event in trace["traceEvents"] if event.get("ph") == "X")
    for name in ("clamp", "estimate", "update"):
        assert names[f"eqprop.{name}"] == 20
    assert names["Optimizer.step#Adam.step"] == 20
    assert names["aten::addmm"] > 20
    assert "profile.json" in traced.out
    assert not list(traced.folder.glob("*.part"))


def test_a_short_run_is_traced_too(tmp_path: Path) -> None:
    ran = train("debug=limit", "trainer.profile=2", *MNIST5K, cwd=tmp_path).succeeded()
    trace = json.loads((ran.folder / "profile.json").read_text())
    names = [event["name"] for event in trace["traceEvents"]]
    assert names.count("eqprop.update") == 2


@pytest.mark.parametrize("key", ["limit_batches", "profile"])
def test_a_number_below_one_is_refused(key: str, tmp_path: Path) -> None:
    ran = train(f"trainer.{key}=0", cwd=tmp_path)
    assert ran.code == 2
    assert ran.error.startswith(f"error: trainer.{key}=0: must be")
