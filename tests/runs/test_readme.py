"""README beside what it speaks of; ``test_pages.py`` runs its examples."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = re.findall(r"```(?:python|bash)\n(.*?)```", README, re.DOTALL)


def block(containing: str) -> str:
    (found,) = (code for code in CODE if containing in code)
    return found


def test_the_library_from_python() -> None:
    """From its first line to its last, which is a prediction."""
    names: dict[str, object] = {}
    torch.manual_seed(0)
    exec(compile(block("RestrictedHopfield("), "README.md", "exec"), names)
    model, accuracy = names["model"], names["accuracy"]
    assert isinstance(model, torch.nn.Module)
    assert isinstance(accuracy, torch.Tensor)
    assert accuracy.item() > 0.6


def test_every_installed_command_is_named() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    commands = re.findall(r"^eqprop(-\S+) = ", project, re.MULTILINE)
    assert len(commands) == 5
    assert all(f"{name}`" in README for name in commands)


def test_every_experiment_has_its_source() -> None:
    sources = README[README.index("## Sources") :]
    patterns = re.findall(r"`([a-z0-9_]+\*?)`", sources)
    for path in (ROOT / "conf" / "experiment").glob("*.yaml"):
        if "Published" in path.read_text(encoding="utf-8"):
            assert any(fnmatch(path.stem, pattern) for pattern in patterns), path.stem


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
