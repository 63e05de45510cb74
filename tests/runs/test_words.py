"""Names, overrides and recorded commands that were not meant for us: one line, or harmless."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from interrupted import alone, learnt
from running import QUICK, train


@pytest.mark.parametrize(
    "name",
    ["../../../out", "/etc/x", "a\tb\x07c", "x" * 300, "<script>alert(1)</script>",
     "${oc.env:HOME}", "..", "~root", "a/b\\c", "\u202etxt.exe"],
)  # fmt: skip
def test_a_name_stays_in_the_output_folder(name: str, tmp_path: Path) -> None:
    from eqprop.cli.command import quoted

    cwd = tmp_path / "here"
    cwd.mkdir()
    ran = train(*QUICK, f"name={quoted(name)}", cwd=cwd)
    assert ran.code == 0, ran.err
    assert [p.name for p in tmp_path.iterdir()] == ["here"]
    assert [p.name for p in cwd.iterdir()] == ["outputs"]
    assert ran.folder.parent.parent == cwd / "outputs"
    assert len(ran.folder.name.encode()) <= 100


@pytest.mark.parametrize("word", ["resume", "rerun"])
@pytest.mark.parametrize("name", ["overrides.yaml", "hydra.yaml", "config.yaml"])
def test_a_recorded_command_that_is_none(word: str, name: str, tmp_path: Path) -> None:
    """One line that names the folder, or the file is not needed: never a traceback or a wait."""
    needed = name != "config.yaml" or word == "rerun"
    for number, text in enumerate(("[1, {", "hydra: {}")[: 1 if name == "hydra.yaml" else 2]):
        folder = tmp_path / f"run-{number}"
        shutil.copytree(alone(), folder)
        (folder / ".hydra" / name).write_text(text)
        ran = train(f"{word}={folder.name}", *QUICK[2:3], cwd=tmp_path)
        assert ran.code == (2 if needed else 0), ran.out + ran.err
        assert not needed or folder.name in ran.error


@pytest.mark.parametrize("value", ["null", ".hydra", "../../x"])
def test_a_run_without_hydra_s_files_has_its_own(value: str, tmp_path: Path) -> None:
    train(*QUICK, f"hydra.output_subdir={value}", "hydra.run.dir=a", cwd=tmp_path).succeeded()
    assert {p.name for p in (tmp_path / "a" / ".hydra").iterdir()} == {
        *("config.yaml", "hydra.yaml", "overrides.yaml")
    }
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    train("resume=a", "trainer.epochs=2", cwd=tmp_path).succeeded()
    train("rerun=a", "hydra.run.dir=b", cwd=tmp_path).succeeded()
    assert learnt(tmp_path / "b")[0] == learnt(tmp_path / "a")[0]
