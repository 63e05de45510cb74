"""What a run says of itself: what runs, what it found, and of which model each number is.

Oracle: another evaluation of the checkpoint that a number belongs to; the record of the run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import QUICK, ROOT, train

import eqprop
from eqprop.config.compose import Composer
from eqprop.relaxation import recommended_solver
from eqprop.report.compare import compare
from eqprop.run.reading import read_run

RESTLESS = ("trainer.epochs=8", "optimizer.lr=0.3", "model.hidden=[8]")
"""Accuracies rise and fall: the best epoch is not the last one."""


def evaluated(folder: Path, checkpoint: str) -> dict[str, str]:
    """The percentages that scripts/evaluate.py finds; it fails where the record has others."""
    script = ROOT / "scripts" / "evaluate.py"
    ran = train(str(folder), "--checkpoint", checkpoint, cwd=folder, script=script).succeeded()
    lines = [line.split() for line in ran.out.splitlines()]
    assert all("(recorded" in words for words in lines)
    return {words[0]: words[1] for words in lines}


def table(out: str) -> dict[str, tuple[str, str]]:
    """The rows of the table at a run's end."""
    cells = [line.split("│") for line in out.splitlines() if line.startswith("│")]
    return {row[1].strip(): (row[2].strip(), row[3].strip()) for row in cells}


def test_every_number_is_of_one_model(tmp_path: Path) -> None:
    ran = train(*QUICK, *RESTLESS, cwd=tmp_path).succeeded()
    best, last = (evaluated(ran.folder, name) for name in ("best", "last"))
    shown, found = table(ran.out), ran.status
    assert (found["best"]["epoch"], found["last"]["epoch"]) == tuple(map(int, shown["epoch"]))
    assert found["best"]["epoch"] < found["last"]["epoch"] == 8
    assert found["selected_by"] == "accuracy/validation"
    assert found["objective"] == found["best"]["accuracy/validation"]
    for split in ("validation", "test"):
        assert shown[split] == (f"{best[split]} %", f"{last[split]} %")
        for which, numbers in (("best", best), ("last", last)):
            assert f"{100 * found[which][f'accuracy/{split}']:.2f}" == numbers[split]
    (line,) = [line for line in ran.out.splitlines() if line.startswith("selected ")]
    for word in (f"epoch {found['best']['epoch']} ", "validation", f"{best['test']} %"):
        assert word in line
    run = read_run(ran.folder)  # what the report and compare show
    for name, value in found["best"].items():
        assert run.best(name) == value
    rows = dict(compare([run, run], everything=True))
    assert rows["best accuracy/test"][0] == f"{found['best']['accuracy/test']:.6g}"


def test_without_a_validation_split_it_says_what_chose(tmp_path: Path) -> None:
    ran = train(*QUICK, *RESTLESS, "dataset.validation=0", cwd=tmp_path).succeeded()
    found = ran.status
    assert found["selected_by"] == "accuracy/test"
    assert found["objective"] == found["best"]["accuracy/test"]
    (line,) = [line for line in ran.out.splitlines() if line.startswith("selected ")]
    assert "test set itself" in line
    assert "validation" not in table(ran.out)
    assert evaluated(ran.folder, "best")["test"] == f"{100 * found['objective']:.2f}"


def test_the_start_says_what_runs_and_the_record_what_auto_chose(tmp_path: Path) -> None:
    words = (*QUICK, "model=hopfield", "dynamics.n_nudged=3", "estimator=ep_centered")
    ran = train(*words, "hydra.run.dir=a", cwd=tmp_path).succeeded()
    head = ran.out.partition("epoch 1/1")[0]
    solver = recommended_solver(eqprop.load(tmp_path / "a"), n_nudged=3)
    chosen = config(tmp_path / "a")["chosen"]
    assert chosen["dynamics"]["_target_"].endswith(f".{type(solver).__name__}")
    for key in ("n_relax", "n_nudged", "rule", "order", "dt"):
        assert chosen["dynamics"][key] == getattr(solver, key)
    assert chosen["dynamics"]["init"] == solver.default_init
    assert chosen["device"]["type"] == "cpu"
    for told in (
        *(
            f"run        {tmp_path / 'a'}",
            "64-16-10",
            f"{64 * 16 + 16 + 16 * 10 + 10:,} parameters",
        ),
        *("Hopfield", "SquaredError", "CenteredEquilibriumPropagation, beta", "Adam, lr 0.001"),
        *("1,298 training, 144 validation, 355 test samples", "thread", "float32"),
        f"{type(solver).__name__}, n_relax {solver.n_relax}, n_nudged 3",
    ):
        assert told in head
    (epoch,) = [line for line in ran.out.splitlines() if line.startswith("epoch 1/1")]
    for split in ("train", "validation", "test"):
        row = ran_row(tmp_path / "a")
        accuracy, cost = row[f"accuracy/{split}"], row[f"cost/{split}"]
        assert f"{split} {100 * accuracy:.2f} % (cost {cost:.4g})" in epoch
    again = train("resume=a", "trainer.epochs=2", cwd=tmp_path).succeeded()  # auto is still auto
    assert "epoch 2/2" in again.out
    assert config(tmp_path / "a")["chosen"] == chosen
    rerun = train("rerun=a", "trainer.epochs=2", "hydra.run.dir=b", cwd=tmp_path).succeeded()
    assert ran_row(tmp_path / "b")["cost/test"] == ran_row(tmp_path / "a")["cost/test"]
    assert rerun.code == 0


def config(folder: Path) -> Any:
    return yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())


def ran_row(folder: Path) -> dict[str, Any]:
    return read_run(folder).rows[-1]


OWN = "# @package _global_\nmodel:\n  _target_: mine.Leaky\n  price: 0.2\n"
NAMES = {
    (): "gaussian-mnist5k",
    ("model._target_=mine.Leaky",): "leaky-mnist5k",
    ("model=leaky",): "leaky-mnist5k",
    ("model=leaky", "model._target_=eqprop.network.RateHopfield"): "rate_hopfield-mnist5k",
    ("network=lenet", "dataset=mnist"): "gaussian-lenet-mnist",
    ("network=low_rank", "estimator=hebbian"): "gaussian-low_rank-mnist5k-hebbian",
    ("estimator=backprop",): "gaussian-mnist5k-backprop",
    ("noise=state", "ablation=frozen_lower"): "gaussian-mnist5k-noise_state-frozen_lower",
    ("experiment=hopfield_mnist_fast",): "hopfield_mnist_fast",
    ("experiment=hopfield_mnist_fast", "dataset=digits"): "hopfield_mnist_fast-digits",
    ("experiment=hopfield_mnist_fast", "estimator=backprop"): "hopfield_mnist_fast-backprop",
    ("experiment=rain_dchn_fashion_mnist",): "rain_dchn_fashion_mnist",
    ("experiment=rain_dchn_fashion_mnist", "dataset=mnist"): "rain_dchn_fashion_mnist-mnist",
    ("experiment=rain_dhn_1h", "model._target_=mine.Leaky"): "rain_dhn_1h-mnist-leaky",
    ("experiment=lab",): "lab-mnist5k",
    ("name=My run", "experiment=hopfield_mnist"): "My-run",
}


def test_a_run_is_named_after_what_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ROOT / "tests" / "example" / "conf"
    for path in own.glob("*/*.yaml"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.parent.name / path.name).write_text(path.read_text())
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "lab.yaml").write_text(OWN)
    composer = Composer(config_dir=str(tmp_path))
    for words, name in NAMES.items():
        cfg = composer.load(words)
        with composer.as_job(cfg, 3):
            for folder in (cfg.hydra.run.dir, cfg.hydra.sweep.subdir):
                title = Path(folder).name.rpartition("-")[0]
                assert re.fullmatch(rf"(3|[0-9]{{2}}-[0-9]{{2}}-[0-9]{{2}})-{name}", title), words


def test_jobs_of_a_multirun_too(tmp_path: Path) -> None:
    jobs = "model._target_=eqprop.network.Hopfield,eqprop.network.PredictiveCoding"
    words = ("-m", *QUICK, jobs, "dataset.limit=100", "cost=mse")
    ran = train(*words, cwd=tmp_path)
    assert ran.code == 0, ran.err
    names = sorted(folder.name.rpartition("-")[0] for folder in ran.folders)
    assert names == ["0-hopfield-digits", "1-predictive_coding-digits"]
