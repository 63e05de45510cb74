"""scripts/gradient_check.py as a user runs it: its numbers, its sentence, its exit status."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import QUICK, ROOT, Ran, train
from scripting import is_png, needs_matplotlib

import eqprop
from eqprop.data import one_hot
from eqprop.data.digits import Digits
from eqprop.estimator import CenteredEquilibriumPropagation
from eqprop.relaxation import Newton

SMALL = ("dataset=digits", "model.hidden=[16]", "dataset.batch_size=20")
PRECISE = (
    "device.dtype=float64",
    "dynamics.n_relax=60",
    "dynamics.n_nudged=60",
    "estimator.beta=0.1",
)


def check(*arguments: str, cwd: Path) -> Ran:
    return train(*arguments, cwd=cwd, script=ROOT / "scripts" / "gradient_check.py")


def report(*arguments: str, cwd: Path) -> Any:
    """What ``--json -`` prints: strict JSON, and nothing else."""
    return json.loads(check(*arguments, "--json", "-", cwd=cwd).succeeded().out)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a trained run in it, of a Gaussian network."""
    cwd = tmp_path_factory.mktemp("made")
    train(*QUICK, *SMALL[1:], "model.activation=tanh", "hydra.run.dir=run", cwd=cwd).succeeded()
    return cwd


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The report on both of EP's estimators, at equilibria of a Hopfield network in float64."""
    words = ("model=hopfield", *SMALL, *PRECISE, "--estimators", "ep,ep_centered")
    return report(*words, cwd=tmp_path_factory.mktemp("orders"))


def test_slopes_are_the_orders(orders: Any) -> None:
    for name, order in (("ep", 1), ("ep_centered", 2)):
        slope = orders["estimators"][name]["slope"]
        assert slope["expected"] == order
        assert slope["fitted"] == pytest.approx(order, abs=0.1)
        assert len(orders["estimators"][name]["beta_sweep"]) == 11
        assert orders["estimators"][name]["limit"]["name"] == "beta"


def test_typed_keys_hold_for_every_estimator_that_has_them(orders: Any) -> None:
    for found in orders["estimators"].values():
        assert found["strength"] == {"beta": 0.1}
        (here,) = (p for p in found["beta_sweep"] if p["setting"] == 0.1)
        (there,) = (p for p in found["step_sweep"] if p["setting"] == 60)
        assert here["error"] == there["error"] == found["whole"]["relative_error"]


def test_the_numbers_are_those_of_a_computation_by_hand(made: Path) -> None:
    """Of a trained network: its gradient by torch's own layers, EP's by the library, by numpy."""
    centered = ("estimator=ep_centered", "estimator.beta=0.3", "--batches", "2")
    found = report("RUN=run", "device.dtype=float64", *centered, "--betas", "0.3", cwd=made)
    model = eqprop.load(made / "run").double().requires_grad_(True)
    keys = {"validation": 0.1, "normalize": [0.3053, 0.3760]}
    data = Digits("data", 20, **keys).load("cpu", torch.float64).shaped((64,))
    ours: list[Any] = [[] for _ in range(4)]
    theirs: list[Any] = [[] for _ in range(4)]
    for x, y, _ in islice(data.epoch(2019, 1), 2):
        W = model.W
        output = torch.nn.functional.linear(
            torch.tanh(torch.nn.functional.linear(x, W[0].weight, W[0].bias)),
            W[1].weight,
            W[1].bias,
        )
        loss = torch.nn.functional.cross_entropy(output, y)
        for kept, g in zip(theirs, torch.autograd.grad(loss, model.parameters()), strict=True):
            kept.append(g.flatten().numpy())
        state = model.new_state(20)
        state.clamp(0, x)
        parts = state, Newton(), eqprop.CrossEntropy(), one_hot(y, 10, x.dtype)
        estimate = CenteredEquilibriumPropagation(0.3).estimate(model, *parts)
        for kept, g in zip(ours, estimate.gradients, strict=True):
            kept.append(g.flatten().numpy().copy())
    names = ["W.0.weight", "W.0.bias", "W.1.weight", "W.1.bias"]
    assert found["parameters"] == names
    assert (found["batches"], found["samples"], found["dtype"]) == (2, 40, "float64")
    of = found["estimators"]["ep_centered"]
    assert list(of["parameters"]) == names
    for name, g, r in zip(
        names, map(np.concatenate, ours), map(np.concatenate, theirs), strict=True
    ):
        one, norm = of["parameters"][name], np.linalg.norm
        assert one["cosine"] == pytest.approx(g @ r / norm(g) / norm(r))
        assert one["norm_ratio"] == pytest.approx(norm(g) / norm(r))
        assert one["relative_error"] == pytest.approx(norm(g - r) / norm(r), rel=1e-6)
        signed = np.sign(g)[r != 0] == np.sign(r)[r != 0]
        assert one["equal_signs"] == pytest.approx(signed.mean(), abs=2e-3)
    g, r = (np.concatenate([np.concatenate(part) for part in both]) for both in (ours, theirs))
    error = np.linalg.norm(g - r) / np.linalg.norm(r)
    assert of["whole"]["relative_error"] == pytest.approx(error, rel=1e-6)
    assert [p["error"] for p in of["beta_sweep"]] == pytest.approx([error], rel=1e-6)
    assert of["evidence"]["error"] == pytest.approx(error, rel=1e-6)


def test_nothing_is_left_and_a_run_is_as_it_was(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "run", tmp_path / "run")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    words = ("RUN=run", "--json", "out.json", "--estimators", "ep")
    out = check(*words, cwd=tmp_path).succeeded().out
    (tmp_path / "out.json").rename(tmp_path.with_suffix(".json"))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    found = json.loads(tmp_path.with_suffix(".json").read_text())
    sentence = found["estimators"]["ep"]["limit"]["sentence"]
    assert f"ep: {sentence}" in out.splitlines()
    assert sum("W.1.weight" in line for line in out.splitlines()) == 1


def test_a_checkpoint_is_chosen_by_name(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "run", tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "last.pt").write_bytes(b"torn")
    shutil.copy(made / "run" / "checkpoints" / "best.pt", tmp_path / "run/checkpoints/mine.pt")
    found = [
        report("RUN=run", "--checkpoint", name, "--batches", "1", "--betas", "1", cwd=tmp_path)
        for name in ("best", "mine")
    ]
    of_best, of_mine = (one["estimators"]["ep"] for one in found)
    for part in ("parameters", "beta_sweep", "step_sweep"):
        assert of_best[part] == of_mine[part]
    ran = check("RUN=run", "--checkpoint", "none", cwd=tmp_path)
    assert ran.code == 2
    assert "none.pt" in ran.error


def test_two_checks_print_the_same(tmp_path: Path) -> None:
    """From random first states in few steps."""
    few = ("dynamics=euler", "dynamics.n_relax=20", "dynamics.dt=0.1", "dynamics.init=normal")
    words = (*SMALL, "model=hopfield", *few, "--batches", "2")
    first, again = (check(*words, cwd=tmp_path).succeeded().out for _ in range(2))
    assert first == again
    assert "too few steps limit it" in first


def test_an_estimator_without_a_strength_has_no_sweep(tmp_path: Path) -> None:
    words = (*SMALL, "estimator.beta=0.5", "--estimators", "backprop,ep", "--reference", "backprop")
    found = report(*words, cwd=tmp_path)
    control = found["estimators"]["backprop"]
    assert (control["strength"], control["beta_sweep"], control["step_sweep"]) == (None, [], [])
    assert control["whole"]["relative_error"] == 0.0
    assert control["limit"]["name"] == "nothing"
    assert found["reference"] == {"name": "backprop", "residual": 0.0}
    assert found["estimators"]["ep"]["strength"] == {"beta": 0.5}


def test_settings_of_the_sweeps(tmp_path: Path) -> None:
    words = (*SMALL, "--betas", "0.5,0.25,0.125", "--steps", "1,3", "--batches", "1")
    found = report(*words, cwd=tmp_path)["estimators"]["ep"]
    assert [point["setting"] for point in found["beta_sweep"]] == [0.5, 0.25, 0.125]
    assert [point["setting"] for point in found["step_sweep"]] == [1, 3]


THRESHOLDS = [
    (("--min-cosine", "0.9", "--max-error", "0.5"), None),
    (("--min-cosine", "0.9999999"), "the cosine of W.0.weight by ep is 0.99"),
    (("--max-error", "1e-6"), "the error of W.0.weight by ep is "),
]


@pytest.mark.parametrize(("thresholds", "words"), THRESHOLDS)
def test_a_threshold_that_is_missed_is_status_1(
    thresholds: tuple[str, ...], words: str | None, tmp_path: Path
) -> None:
    sweeps = ("--batches", "1", "--betas", "1", "--steps", "1")
    ran = check(*SMALL, *sweeps, *thresholds, cwd=tmp_path)
    assert "W.0.weight" in ran.out, "the table is shown all the same"
    if words is None:
        ran.succeeded()
    else:
        assert ran.code == 1
        assert words in ran.error
        assert "(and " in ran.error


def test_what_is_not_finite_misses_every_threshold(tmp_path: Path) -> None:
    words = ("model=hopfield", "dynamics=euler", "dynamics.dt=1e30", "model.activation=identity")
    ran = check(*SMALL, *words, "--batches", "1", "--max-error", "0.5", cwd=tmp_path)
    assert ran.code == 1
    assert "not finite" in ran.err.splitlines()[-1]
    assert "there is nothing to compare" in ran.out


WRONG = {
    "an unknown key": (("estimator.bata=1",), "estimator.beta"),
    "a wrong value": (("model.hidden=[0]",), "model.hidden"),
    "an unknown option": (("model=nope",), "nope"),
    "an unknown estimator": (("--estimators", "ep,nope"), "nope"),
    "an unknown reference": (("--reference", "nope"), "nope"),
    "an estimator that refuses": (("+estimator.phases=[]",), "phases"),
    "no batches": (("--batches", "0"), "--batches"),
    "no strength": (("--betas", "0.1,0"), "--betas"),
    "a strength that is refused": (("estimator=ep_centered", "--betas", "0.1,-0.1"), "beta"),
    "no number": (("--min-cosine", "nan"), "--min-cosine"),
    "an unknown flag": (("--nope",), "--nope"),
    "two runs": (("RUN=a", "RUN=b"), "RUN"),
    "no run": (("RUN=nowhere",), "RUN='nowhere'"),
    "a run to resume": (("resume=run",), "RUN=folder"),
    "a folder that is not there": (("--json", "no/where.json"), "no/where.json"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_command_is_one_line(what: str, tmp_path: Path) -> None:
    arguments, words = WRONG[what]
    sweeps = ("--betas", "1") if "--betas" not in arguments else ()
    ran = check(*SMALL, *arguments, *sweeps, cwd=tmp_path)
    assert ran.code == 2
    assert words in ran.error
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_files_have_changed_is_refused(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "run", tmp_path / "run")
    config = tmp_path / "run" / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("activation: tanh", "activation: sigmoid"))
    ran = check("RUN=run", cwd=tmp_path)
    assert ran.code == 2
    assert "model.activation" in ran.error


def test_another_network_than_the_run_s_is_refused(made: Path) -> None:
    ran = check("RUN=run", "model.hidden=[17]", cwd=made)
    assert ran.code == 2
    assert "W.0.weight" in ran.error


@needs_matplotlib
def test_the_figure_is_there(tmp_path: Path) -> None:
    words = (*SMALL, "--estimators", "ep,backprop", "--batches", "1", "--figure", "a.png")
    ran = check(*words, "--json", "-", cwd=tmp_path)
    assert json.loads(ran.out)
    assert is_png(tmp_path / "a.png")
    check(*SMALL, "estimator=backprop", "--figure", "b.png", cwd=tmp_path).succeeded()
    assert is_png(tmp_path / "b.png"), "with nothing to vary"
