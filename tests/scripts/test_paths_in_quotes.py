"""``~`` and variables in what the scripts are told, as an argument in quotes brings them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from interrupted import alone
from scripting import needs_matplotlib, run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with finished runs, ``runs/a`` and ``runs/b``; the working folder is another."""
    for name in "ab":
        shutil.copytree(alone(), tmp_path / "home" / "runs" / name)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RUNS", str(tmp_path / "home" / "runs"))
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("script", "paths"),
    [
        ("evaluate.py", ["~/runs/a"]),
        ("compare.py", ["~/runs/a", "$RUNS/b"]),
        ("results_table.py", ["${RUNS}/a"]),
    ],
)
def test_a_run(script: str, paths: list[str], home: Path) -> None:
    assert run(script, *paths)
    assert not list(Path().iterdir())  # no folder is called ~


@pytest.mark.parametrize("script", ["compare.py", "report.py"])
def test_none_there_is_one_line_with_the_whole_path(script: str, home: Path) -> None:
    line = run(script, *["~/runs/a"] * (script == "compare.py"), "~/runs/c", status=2)
    assert str(home / "runs" / "c") in line
    assert len(line.splitlines()) == 1


def test_what_is_written(home: Path) -> None:
    run("report.py", "~/runs", "--output", "~/page.html")
    run("results_table.py", "~/runs", "--record", "$HOME/record.json", "--page=~/page.md")
    assert (home / "page.html").is_file()
    assert (home / "page.md").is_file()
    assert (
        len(json.loads((home / "record.json").read_text())["runs"]) == 1
    )  # of one command and seed
    assert not list(Path().iterdir())


@needs_matplotlib
def test_the_gradients_of_a_run(home: Path) -> None:
    run("gradient_check.py", "RUN=~/runs/a", "--batches=1", "--figure", "~/gradients.png")
    assert (home / "gradients.png").is_file()
