"""The built wheel, installed by itself and started from somewhere else."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from running import QUICK, ROOT, Ran, train

NO_BUILD = ("Could not find a version", "Connection", "connection", "No matching distribution")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, from a copy so that nothing is left in it."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)],
        capture_output=True,
        text=True,
    )
    if done.returncode and any(words in done.stderr for words in NO_BUILD):
        pytest.skip("pip cannot fetch hatchling, which builds the wheel")
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("eqprop-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel alone is installed in; what it depends on is there already."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    command = [*pip, "install", "--no-deps", "--no-index", "--target", str(folder), str(wheel)]
    subprocess.run(command, check=True)
    return folder


def test_what_is_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    conf = {
        f"eqprop/conf/{path.relative_to(ROOT / 'conf')}" for path in ROOT.glob("conf/**/*.yaml")
    }
    modules = {str(path.relative_to(ROOT)) for path in ROOT.glob("eqprop/**/*.py")}
    assert names >= conf | modules
    assert not [name for name in names if not name.startswith(("eqprop/", "eqprop-"))]


def installed_run(installed: Path, *arguments: str, cwd: Path) -> Ran:
    """Start the console script, with the installed package before all others."""
    env = {"PYTHONPATH": str(installed)}
    return train(*arguments, cwd=cwd, env=env, cold=True, script=installed / "bin/eqprop-train")


def test_it_runs_from_a_folder_of_its_own(installed: Path, tmp_path: Path) -> None:
    cwd = tmp_path / "my experiments"
    cwd.mkdir()
    ran = installed_run(installed, *QUICK, "trainer.epochs=2", cwd=cwd).succeeded()
    assert ran.status["state"] == "done"
    assert len(ran.epochs) == 2
    hydra = (ran.folder / ".hydra" / "hydra.yaml").read_text()
    assert str(installed / "eqprop" / "conf") in hydra.replace("\n", "").replace("  ", "")
    assert str(ROOT / "conf") not in hydra
    assert os.listdir(cwd) == ["outputs"]


def test_its_mistakes_are_one_line_too(installed: Path, tmp_path: Path) -> None:
    ran = installed_run(installed, "dynamcis.dt=0.1", cwd=tmp_path)
    assert ran.code == 2
    assert "did you mean dynamics.dt?" in ran.error
    assert list(tmp_path.iterdir()) == []


def test_its_help(installed: Path, tmp_path: Path) -> None:
    ran = installed_run(installed, "--help", cwd=tmp_path).succeeded()
    for words in ("model: gaussian, hopfield", "experiment: ernoult_conv_mnist, gaussian_mnist"):
        assert words in ran.out
