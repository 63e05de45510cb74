"""The built package: checked, and the wheel installed by itself and used from elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
from running import QUICK, ROOT, Ran, train

NO_BUILD = ("Could not find a version", "Connection", "connection", "No matching distribution")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of this checkout, and the wheel that is made of it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and any(words in done.stdout + done.stderr for words in NO_BUILD):
        pytest.skip("hatchling, which builds the package, cannot be fetched")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("eqprop-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel alone is installed in; what it depends on is there already."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    command = [*pip, "install", "--no-deps", "--no-index", "--target", str(folder), str(wheel)]
    subprocess.run(command, check=True)
    return folder


def test_what_a_registry_would_say(built: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_what_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        (about,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = file.read(about).decode()
    conf = {
        f"eqprop/conf/{path.relative_to(ROOT / 'conf')}" for path in ROOT.glob("conf/**/*.yaml")
    }
    files = (path for path in ROOT.glob("eqprop/**/*") if path.is_file())
    package = {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"}
    assert names >= conf | package
    assert "eqprop/py.typed" in names
    assert not [name for name in names if not name.startswith(("eqprop/", "eqprop-"))]
    assert "License-Expression: MIT" in metadata


def test_what_is_in_the_sdist(built: Path) -> None:
    """All that the repository tracks but the folder of outputs, so that its tests run there too."""
    (found,) = built.glob("eqprop-*.tar.gz")
    with tarfile.open(found) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git repository, so nobody knows what it should hold")
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    assert tracked - names == {"outputs/.gitkeep"}


def use(
    installed: Path, command: str, *arguments: str, cwd: Path, env: dict[str, str] | None = None
) -> Ran:
    """Start an installed command, with the installed package before all others."""
    paths = {"PYTHONPATH": str(installed), **(env or {})}
    return train(*arguments, cwd=cwd, env=paths, cold=True, script=installed / "bin" / command)


def commands(installed: Path) -> set[str]:
    """Those that the wheel installs."""
    (found,) = installed.glob("eqprop-*.dist-info/entry_points.txt")
    parser = ConfigParser()
    parser.read(found)
    return set(parser["console_scripts"])


def test_every_command_works_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    cwd = tmp_path / "my experiments"
    cwd.mkdir()
    words = (*QUICK, "trainer.epochs=2", "hydra.run.dir=run")
    ran = use(installed, "eqprop-train", *words, cwd=cwd).succeeded()
    assert sorted(os.listdir(cwd)) == ["run"]
    assert ran.out.count("accuracy") > 0
    settings = (cwd / "run" / ".hydra" / "hydra.yaml").read_text()
    assert str(installed / "eqprop" / "conf") in settings.replace("\n", "").replace("  ", "")
    assert str(ROOT / "conf") not in settings
    small = ("--batches", "1", "--betas", "1", "--steps", "1")
    others = {
        "eqprop-report": ("--no-png", "run"),
        "eqprop-compare": ("--all", "run", "run"),
        "eqprop-evaluate": ("run",),
        "eqprop-gradient-check": ("RUN=run", *small),
    }
    assert commands(installed) == {"eqprop-train", *others}
    said = {name: use(installed, name, *words, cwd=cwd) for name, words in others.items()}
    for ran in said.values():
        ran.succeeded()
    assert (cwd / "run" / "report" / "index.html").is_file()
    assert "trainer.epochs" in said["eqprop-compare"].out
    assert said["eqprop-evaluate"].out.count("(recorded") == 2
    assert "W.0.weight" in said["eqprop-gradient-check"].out
    assert sorted(os.listdir(cwd)) == ["run"]


def test_mistakes_are_one_line_too(installed: Path, tmp_path: Path) -> None:
    ran = use(installed, "eqprop-train", "dynamcis.dt=0.1", cwd=tmp_path)
    assert ran.code == 2
    assert "did you mean dynamics.dt?" in ran.error
    wrong = {"eqprop-report": ["nowhere"], "eqprop-compare": ["nowhere", "here"]}
    wrong |= {"eqprop-evaluate": ["nowhere"], "eqprop-gradient-check": ["RUN=nowhere"]}
    for name, words in wrong.items():
        ran = use(installed, name, *words, cwd=tmp_path)
        assert ran.code == 2
        assert "nowhere" in ran.error
    assert list(tmp_path.iterdir()) == []


def test_its_help(installed: Path, tmp_path: Path) -> None:
    """It names the command, and the script that is the same in a clone; without torch."""
    blocker = tmp_path / "blocker"
    blocker.mkdir()
    (blocker / "torch.py").write_text("raise AssertionError('the help has loaded torch')\n")
    env = {"PYTHONPATH": os.pathsep.join([str(blocker), str(installed)])}
    cwd = tmp_path / "here"
    cwd.mkdir()
    for name in sorted(commands(installed)):
        ran = use(installed, name, "--help", cwd=cwd, env=env).succeeded()
        script = name.removeprefix("eqprop-").replace("-", "_")
        assert name in ran.out
        assert f"scripts/{script}.py" in ran.out
        assert (ROOT / "scripts" / f"{script}.py").is_file()
    assert list(cwd.iterdir()) == []
