"""Broken checkpoints in a run's folder, and whole ones that are loaded and evaluated again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from interrupted import RUN, alone, killed, learnt
from running import ROOT, Ran, rows, status, train
from test_nothing_gets_in import sealed

import eqprop
from eqprop.run.checkpoint import CheckpointError, read


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the run `a`, killed in its third epoch, and the same left alone."""
    cwd = tmp_path_factory.mktemp("cut")
    shutil.copytree(alone(), cwd / "alone")
    killed(30, *RUN, "checkpoint.keep=1", "hydra.run.dir=a", cwd=cwd)
    return cwd


@pytest.fixture
def cwd(cut: Path, tmp_path: Path) -> Path:
    shutil.copytree(cut, tmp_path, dirs_exist_ok=True)
    return tmp_path


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()  # it may be one file under two names
    path.write_bytes(bytes(data))


def test_the_newest_valid_one_is_used(cwd: Path) -> None:
    files = cwd / "a" / "checkpoints"
    damage(files / "last.pt")
    damage(files / "epoch-2.pt")
    ran = train("resume=a", cwd=cwd)
    assert ran.code == 0
    warnings = [line for line in ran.out.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2
    assert all("checksum does not hold; another checkpoint is used" in line for line in warnings)
    assert learnt(cwd / "a") == learnt(cwd / "alone")
    assert (files / "last.pt.aside").exists()


def test_of_an_explicitly_named_one_there_is_no_fallback(cwd: Path) -> None:
    damage(cwd / "a" / "checkpoints" / "last.pt")
    ran = train("resume=a/checkpoints/last.pt", cwd=cwd)
    assert ran.code == 2
    assert "last.pt is damaged" in ran.error
    assert status(cwd / "a")["state"] == "running"  # nothing was touched


def test_an_explicitly_named_one_is_used(cwd: Path) -> None:
    """It is the one of epoch 1; what lies after it is set aside, and comes out again."""
    ran = train("resume=a/checkpoints/last.previous.pt", cwd=cwd).succeeded()
    assert "epoch 2/3" in ran.out
    assert learnt(cwd / "a") == learnt(cwd / "alone")


def test_all_of_them_broken(cwd: Path) -> None:
    for path in (cwd / "a" / "checkpoints").glob("*.pt"):
        damage(path)
    ran = train("resume=a", cwd=cwd)
    assert ran.code == 2
    assert "no other one to fall back on" in ran.error
    assert len(rows(cwd / "a")) > 10  # the metrics are still there


def test_one_of_another_network(cwd: Path) -> None:
    """Even under the right configuration: shapes are compared before anything is copied."""
    train(*RUN, "model.hidden=[8]", "hydra.run.dir=other", cwd=cwd).succeeded()
    files = cwd / "a" / "checkpoints"
    ours, theirs = read(files / "last.pt"), read(cwd / "other" / "checkpoints" / "last.pt")
    for path in files.glob("*.pt"):
        path.unlink()
    data = json.dumps(ours.meta).encode()
    (files / "last.pt").write_bytes(sealed(data, theirs.body))
    ran = train("resume=a", cwd=cwd)
    assert ran.code == 2
    assert "of another network: W.0.weight is (8, 64) there, (16, 64) here" in ran.error


def test_a_checkpoint_names_no_code_to_run(cwd: Path) -> None:
    files = cwd / "alone" / "checkpoints"
    found = read(files / "last.pt")
    found.meta["config"]["model"] = {
        "_target_": "pathlib.Path.touch",
        "hidden": [16],
        "activation": "sigmoid",
    }
    (files / "last.pt").write_bytes(sealed(json.dumps(found.meta).encode(), found.body))
    with pytest.raises(CheckpointError, match=r"pathlib\.Path\.touch is no"):
        eqprop.load(cwd / "alone")


def test_load_gives_the_model_that_was_trained(cwd: Path) -> None:
    model = eqprop.load(cwd / "alone")
    weights = read(cwd / "alone" / "checkpoints" / "last.pt").tensors()["model"]
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training
    model.resize(3)
    model.clamp_layer(0, torch.rand(3, 64))
    model.fast_init()
    assert model.u[-1].argmax(1).shape == (3,)
    best = eqprop.load(cwd / "alone", "best")
    assert best.dimensions == [64, 16, 10], "it has the published names"


def test_load_gives_feedback_weights_back() -> None:
    run = alone("model=hopfield", "model.feedback=fixed", "estimator=asymmetric")
    model, file = eqprop.load(run), read(run / "checkpoints" / "last.pt")
    found, wanted = model.state_dict(), file.tensors()["model"]
    assert model.asymmetric
    assert found.keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.items())


def test_load_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        eqprop.load(tmp_path)
    with pytest.raises(CheckpointError, match="cannot read"):
        eqprop.load(tmp_path, "best")


def evaluate(cwd: Path, *arguments: str) -> Ran:
    return train(*arguments, cwd=cwd, script=ROOT / "scripts" / "evaluate.py")


def test_evaluating_again_gives_the_recorded_accuracy(cwd: Path) -> None:
    recorded = rows(cwd / "alone")[-1]
    ran = evaluate(cwd, "alone").succeeded()
    for line, split in zip(ran.out.splitlines(), ("validation", "test"), strict=True):
        percent = f"{100 * recorded[f'accuracy/{split}']:.2f} %"
        assert line.startswith(split)
        assert line.count(percent) == 2
    evaluate(cwd, "alone", "--checkpoint", "best").succeeded()


def test_evaluating_tells_when_it_does_not(cwd: Path) -> None:
    path = cwd / "alone" / "metrics.jsonl"
    *before, last = path.read_text().splitlines()
    changed = json.dumps({**json.loads(last), "accuracy/test": 0.5})
    path.write_text("\n".join([*before, changed]) + "\n")
    assert evaluate(cwd, "alone").code == 1


def test_evaluating_nothing(tmp_path: Path) -> None:
    ran = evaluate(tmp_path, "nowhere")
    assert ran.code == 2
    assert "holds no checkpoint" in ran.error
