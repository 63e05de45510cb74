"""Mistakes, one after the other, through the command line: one line, exit status 2, no traces."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from running import QUICK, SCRIPT, environment, train

import eqprop

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
MNIST = ("dataset=mnist", "dataset.download=false", *QUICK[1:])


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("optimizer.lr=abc", "optimizer.lr='abc' number"),
        ("optimizer.lr=null", "optimizer.lr=null number"),
        ("optimizer.lr=0", "optimizer.lr=0 > 0"),
        ("optimizer.lr=true", "optimizer.lr=true number"),
        ("dynamics.dt=-1", "dynamics.dt=-1"),
        ("dynamics.dt=nan", "dynamics.dt=nan"),
        ("dynamics=euler dynamics.dt=-1", "dynamics.dt=-1 > 0"),
        ("dynamics=euler dynamics.dt=nan", "dynamics.dt=nan finite"),
        ("dynamics.tol=inf", "dynamics.tol=inf finite"),
        ("dynamics.init=ones", "dynamics.init='ones' zeros"),
        ("model.hidden=[]", "model.hidden=[] list"),
        ("model.hidden=[16,0]", "model.hidden 0 >= 1"),
        ("model.hidden=100", "model.hidden=100 list"),
        ("model.activation=sigmod", "model.activation='sigmod' sigmoid"),
        ("estimator.beta=0", "estimator.beta=0 other than zero"),
        ("estimator=ep_centered estimator.beta=-1", "estimator.beta=-1 > 0"),
        ("dataset.batch_size=0", "dataset.batch_size=0 >= 1"),
        ("dataset.validation=1", "dataset.validation=1 < 1"),
        ("dataset.limit=0", "dataset.limit=0 >= 1"),
        ("trainer.epochs=1.5", "trainer.epochs=1.5 whole"),
        ("seed=-1", "seed=-1 0"),
        (f"seed={2**70}", f"seed={2**70} 2^63"),
        ("seed=2**70", "seed='2**70' whole number"),
        ("optimizer.lr=1e400", "optimizer.lr=inf finite > 0"),
        ("checkpoint.share=0", "checkpoint.share=0 > 0 <= 1"),
        ("checkpoint.every_steps=0", "checkpoint.every_steps=0 null"),
        ("dynamcis.dt=0.1", "dynamcis.dt did you mean dynamics.dt?"),
        ("optimizer.learning_rate=1", "optimizer.learning_rate unknown key"),
        ("+dynamics.stepsize=1", "dynamics.stepsize unknown key"),
        ("model=gausian", "model=gausian did you mean gaussian?"),
        ("experiment=mnist_gaussian", "experiment=mnist_gaussian gaussian_mnist"),
        ("modle=gaussian", "modle did you mean model?"),
        ("model=hopfield dynamics.init=feedforward", "dynamics.init='feedforward' Hopfield"),
        ("device=cuda", "device GPU device=cpu"),
        ("optimizer=sgd optimizer.nesterov=true", "optimizer.nesterov=true momentum"),
        ("optimizer.lr=1e-3,3e-3", "optimizer.lr=1e-3,3e-3 -m"),
        ("name=${nmae}", "name nmae"),
        ("model.hidden=[16", "model.hidden=[16"),
        ("epochs", "epochs missing '='"),
        ("--config-dir=nowhere", "nowhere no folder"),
        ("-m optimizer.lr=-1,-2", "optimizer.lr=-1 > 0"),
        ("-m model=hopfield seed=1,2 dynamics.init=feedforward", "dynamics.init feedforward"),
        ("-m model=gaussian,hopfeild", "hopfeild did you mean hopfield?"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(command: str, words: str, tmp_path: Path) -> None:
    ran = train(*command.split(), cwd=tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert ran.error.startswith("error: ")
    for word in words.split():
        assert word in ran.error
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_flag(tmp_path: Path) -> None:
    ran = train("--epochs", "3", cwd=tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert "--epochs" in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "--version",
        "--cfg job",
        "--hydra-help",
        "--shell-completion query=bash",
        "optimizer.lrr=1",
        "optimizer=adma",
        "optimizer.lr=1,2",
    ],
)
def test_what_needs_no_torch_does_not_wait_for_it(arguments: str, tmp_path: Path) -> None:
    program = f"""
import runpy, sys
try:
    runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
except SystemExit:
    pass
print(sorted({{"torch", "wandb", "sklearn"}} & set(sys.modules)), file=sys.stderr)
"""
    command = [sys.executable, "-W", "error", "-c", program, *arguments.split()]
    env = {**environment({}), "COMP_LINE": "train.py optimizer=ad", "COMP_POINT": "21"}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_the_version_is_ours(tmp_path: Path) -> None:
    ran = train("--version", cwd=tmp_path).succeeded()
    assert ran.out == f"eqprop {eqprop.__version__}\n"


def test_hydra_s_help(tmp_path: Path) -> None:
    out = train("--hydra-help", cwd=tmp_path).succeeded().out
    assert "--multirun" in out
    assert "hydra/launcher" in out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("optimizer=ad", {"optimizer=adagrad", "optimizer=adam", "optimizer=adamw"}),
        ("trainer.ep", {"trainer.epochs="}),
    ],
)
def test_completion_offers_what_fits(typed: str, offered: set[str], tmp_path: Path) -> None:
    line = f"train.py {typed}"
    env = {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    ran = train("--shell-completion", "query=bash", cwd=tmp_path, env=env).succeeded()
    assert set(ran.out.split()) == offered


def test_a_traceback_for_those_who_ask(tmp_path: Path) -> None:
    env = {"HYDRA_FULL_ERROR": "1"}
    wrong = train("optimizer.lr=abc", cwd=tmp_path, env=env)
    missing = train(*MNIST, cwd=tmp_path, env=env)
    for ran, error in ((wrong, "ConfigError: optimizer.lr"), (missing, "DataError: missing in")):
        assert ran.code != 0
        assert "Traceback (most recent call last)" in ran.err
        assert error in ran.err


def write_mnist(folder: Path, images: int = 30, labels: int = 30) -> None:
    """Four small files in MNIST's format below `folder`."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        pixels = bytes(i % 251 for i in range(images * 784))
        header = struct.pack(">4I", 0x803, images, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels)
        header = struct.pack(">2I", 0x801, labels)
        classes = bytes(i % 10 for i in range(labels))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + classes)


def test_files_in_mnist_s_format_are_read(tmp_path: Path) -> None:
    write_mnist(tmp_path / "data")
    file = tmp_path / "data/MNIST/raw" / TEST_LABELS
    file.with_suffix(".gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    ran = train(*MNIST, cwd=tmp_path).succeeded()
    assert ran.status["state"] == "done"


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (IMAGES, None, "missing"),
        (TEST_LABELS, None, "missing"),
        (IMAGES, slice(1000), "truncated"),
        (TEST_IMAGES, slice(7), "truncated"),
        (LABELS, slice(20), "truncated"),
        (LABELS, slice(0), "truncated"),
        (IMAGES, b"<!doctype html><title>Not found</title>", "error page"),
        (TEST_IMAGES, struct.pack(">4I", 0x803, 1, 32, 32) + bytes(1024), "32 × 32"),
        (LABELS, struct.pack(">2I", 0x801, 30) + bytes(29) + b"\x0a", "label 10"),
        (LABELS, struct.pack(">2I", 0x801, 10) + bytes(10), "30 images 10 labels"),
    ],
)
def test_a_data_file_that_is_not_right(
    file: str, content: bytes | slice | None, words: str, tmp_path: Path
) -> None:
    folder = tmp_path / "my data"
    write_mnist(folder)
    path = folder / "MNIST/raw" / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[content] if isinstance(content, slice) else content)
    ran = train(*MNIST, "paths.data='my data'", cwd=tmp_path)
    assert ran.code == 2
    assert ran.out.split() == ["run", *str(ran.folder).split()]
    for word in [file, "my data/MNIST/raw", *words.split()]:
        assert word in ran.error
    assert (ran.status["state"], ran.status["exit_code"]) == ("failed", 2)
    assert ran.error == f"error: {ran.status['reason']}"
    assert ran.status["reason"] in (ran.folder / "run.log").read_text()


def test_data_that_cannot_be_downloaded(tmp_path: Path) -> None:
    nowhere = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}
    ran = train(*MNIST, "dataset.download=true", cwd=tmp_path, env=nowhere)
    assert ran.code == 2
    for word in ("download", IMAGES, TEST_LABELS, "data/MNIST/raw", "paths.data"):
        assert word in ran.error


@pytest.mark.parametrize("multirun", [(), ("-m",)], ids=["run", "multirun"])
def test_a_folder_that_cannot_be_written(multirun: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = train(*multirun, *QUICK, "paths.outputs=file/outputs", cwd=tmp_path)
    assert ran.code == 2
    for word in ("file/outputs", "Not a directory", "paths.outputs"):
        assert word in ran.error


def test_a_folder_that_an_earlier_run_has_used(tmp_path: Path) -> None:
    folder = ("hydra.run.dir=outputs/here",)
    first = train(*QUICK, *folder, cwd=tmp_path).succeeded()
    left = {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()}
    second = train(*QUICK, *folder, "seed=1", cwd=tmp_path)
    assert second.code == 2
    for word in ("outputs/here", "earlier run", "hydra.run.dir"):
        assert word in second.error
    assert {path: path.read_bytes() for path in left} == left


@pytest.mark.parametrize(
    ("overrides", "steps", "validation"),
    [
        ("dataset.batch_size=100000", 1, True),
        ("dataset.batch_size=100 dataset.limit=50", 1, True),
        ("dataset.batch_size=9 dataset.limit=30 dataset.validation=0.3", 3, True),
        ("dataset.limit=1", 1, False),
        ("dataset.limit=1 dataset.batch_size=1 model=hopfield", 1, False),
        ("dataset.limit=1 dataset.validation=0.9", 1, False),
        ("dataset.limit=2 dataset.validation=0.5 trainer.eval_batch_size=1", 1, True),
    ],
)
def test_few_samples(overrides: str, steps: int, validation: bool, tmp_path: Path) -> None:
    ran = train(*QUICK, *overrides.split(), cwd=tmp_path).succeeded()
    (epoch,) = ran.epochs
    assert epoch["step"] == steps
    assert ("accuracy/validation" in epoch) is validation
    objective = epoch["accuracy/validation" if validation else "accuracy/test"]
    assert ran.status["objective"] == objective
