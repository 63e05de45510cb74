"""scripts/evaluate.py on what a run may have left, wherever it is looked at."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running import QUICK, ROOT, Ran, environment, train

from eqprop.run import checkpoint

MINE = """
import eqprop


class Mine(eqprop.EnergyBasedModel):
    def energy(self, u):
        r = [phi(layer) for phi, layer in zip(self.phi, u)]
        own = sum((0.5 * layer**2).sum(1) for layer in u)
        return own - sum((c(a) * b).sum(1) for c, a, b in zip(self.W, r, r[1:]))
"""


def evaluate(cwd: Path, *arguments: str) -> Ran:
    return train(*arguments, cwd=cwd, script=ROOT / "scripts" / "evaluate.py")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("made")
    train(*QUICK, "hydra.run.dir=run", cwd=cwd).succeeded()
    return cwd


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "run", tmp_path / "run")


def test_an_energy_beside_the_command_is_found(tmp_path: Path) -> None:
    """As by train.py: the folder of the command counts."""
    (tmp_path / "mine.py").write_text(MINE)
    words = ("model._target_=mine.Mine", "cost=mse", "hydra.run.dir=run")
    train(*QUICK, *words, cwd=tmp_path).succeeded()
    ran = evaluate(tmp_path, "run").succeeded()
    assert ran.out.count("(recorded") == 2


@pytest.mark.parametrize("text", [None, "garbage\n", "[]\n{}\n7\n", '{"step": 1'])
def test_a_run_whose_record_is_lost_can_be_evaluated(text: str | None, run: Path) -> None:
    if text is None:
        (run / "metrics.jsonl").unlink()
    else:
        (run / "metrics.jsonl").write_text(text)
    ran = evaluate(run.parent, "run").succeeded()
    assert ran.out.count("(not recorded)") == 2


def test_a_run_of_another_machine_can_be_evaluated(run: Path) -> None:
    """One with GPUs and TensorBoard: neither decides what its weights answer."""
    path = run / "checkpoints" / "last.pt"
    found = checkpoint.read(path)
    found.meta["config"]["device"] |= {"type": "cuda", "index": 3, "cuda_graph": True}
    found.meta["config"]["tracking"]["trackers"] = {"there": {"_target_": "not_here.Tracker"}}
    checkpoint.write(path, found.meta, found.tensors())
    ran = evaluate(run.parent, "run").succeeded()
    assert ran.out.count("(recorded") == 2


def test_it_says_that_the_last_checkpoint_was_broken(run: Path) -> None:
    folder = run / "checkpoints"
    shutil.copy(folder / "last.pt", folder / "epoch-1.pt")
    (folder / "last.pt").write_bytes(b"torn")
    ran = evaluate(run.parent, "run")
    assert ran.code == 0
    assert "epoch-1.pt" in ran.error


def test_a_checkpoint_that_was_kept_twice_is_no_broken_one(run: Path) -> None:
    folder = run / "checkpoints"
    (folder / "epoch-1.pt").hardlink_to(folder / "last.pt")  # as checkpoint.keep does
    evaluate(run.parent, "run").succeeded()


@pytest.mark.parametrize(
    ("how", "script"),
    [
        ("gone", "evaluate.py"),  # the others load no torch, and are as quick as a case can be
        *((how, name) for how in ("closed", "ascii") for name in ("compare.py", "report.py")),
    ],
)
def test_a_poor_standard_output_costs_nothing(how: str, script: str, run: Path) -> None:
    """Its reader goes away, it is closed, or it has few letters."""
    run = run.rename(run.with_name("rün"))
    words = {"compare.py": ["--all", run.name, run.name], "report.py": ["--no-png", run.name]}
    command = [sys.executable, ROOT / "scripts" / script, *words.get(script, [run.name])]
    line = shlex.join(map(str, command)) + {"gone": " | true", "closed": " >&-", "ascii": ""}[how]
    more = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "ascii" if how == "ascii" else "utf-8"}
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        cwd=run.parent,
        env=environment(more),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
