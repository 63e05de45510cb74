"""README's examples, run as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from running import train

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = re.findall(r"```(?:python|bash)\n(.*?)```", README, re.DOTALL)


def block(containing: str) -> str:
    (found,) = (code for code in CODE if containing in code)
    return found


def test_an_energy_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(block("class Leaky"), encoding="utf-8")
    command = shlex.split(block("mine.Leaky"))
    assert command[:2] == ["python", "scripts/train.py"]
    small = ["trainer.epochs=1", "dataset.limit=60", "dataset.batch_size=20", "tracking=none"]
    done = train(*command[2:], *small, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "accuracy" in done.out


def test_the_library_from_python() -> None:
    code = block("RestrictedHopfield")
    x, y = torch.rand(100, 784), torch.eye(10)[torch.randint(10, (100,))]
    names: dict[str, object] = {"x": x, "y": y}
    torch.manual_seed(0)
    exec(compile(code, "README.md", "exec"), names)
    model = names["model"]
    assert isinstance(model, torch.nn.Module)
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


def test_ci_runs_readme_s_test_command() -> None:
    words = block("pytest")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for part in ("python3 -m venv", "bin/activate", '-e ".[dev,report,ray]"'):
        assert part in words
        assert part in ci
    assert words.strip().rpartition(" && ")[2] in ci


@pytest.mark.parametrize("path", re.findall(r"\]\((docs/[^)]+)\)", README))
def test_its_pictures_and_pages_are_there(path: str) -> None:
    assert (ROOT / path).stat().st_size > 500
