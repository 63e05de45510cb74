"""A user without a home, or with one that cannot be written: a run costs a line, and no litter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import QUICK, SCRIPT, environment, status, train

from eqprop.relaxation.compiled import cache
from eqprop.run.home import _is_writable

NOBODY = 12345  # no entry in passwd
ROOT = os.geteuid() == 0


@pytest.fixture
def place() -> Iterator[Path]:
    """Folders ``work`` and ``tmp`` that everybody can write, and ``home`` that nobody can."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, mode in (("work", 0o777), ("tmp", 0o777), ("home", 0o555), (".", 0o755)):
            (folder / part).mkdir(exist_ok=True)
            (folder / part).chmod(mode)
        yield folder


def as_nobody(place: Path, *arguments: str, **env: Any) -> subprocess.CompletedProcess[str]:
    """A run as in a container: of root's, as a user that the machine does not know."""
    other = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    python = [*(other if ROOT else []), sys.executable, "-W", "error"]
    how: Any = {"cwd": place / "work", "capture_output": True, "text": True}
    how["env"] = environment({"TMPDIR": str(place / "tmp"), "PYTHONDONTWRITEBYTECODE": "1", **env})
    if ROOT and shutil.which("setpriv") is None:
        pytest.skip("setpriv is not there")
    if subprocess.run([*python, "-c", f"import hydra; open({str(SCRIPT)!r})"], **how).returncode:
        pytest.skip("this interpreter, or this checkout, is not there for other users")
    return subprocess.run([*python, str(SCRIPT), *arguments], **how)


SMALL = ("model.hidden=[16]", "trainer.epochs=1", "dataset.limit=200")


def test_the_default_run_of_a_user_without_a_home(place: Path) -> None:
    """W&B and the parsed digits included; a home that cannot be written, a TMPDIR that is gone."""
    closed = str(place / "home")
    ran = as_nobody(place, *SMALL, "hydra.run.dir=a", HOME=None if ROOT else closed)
    assert ran.returncode == 0, ran.stderr
    (line,) = ran.stderr.splitlines() or [ran.stdout.splitlines()[0]]
    assert "XDG_CACHE_HOME" in line
    assert "left out" not in ran.stdout  # no tracker was lost
    assert status(place / "work" / "a")["state"] == "done"
    assert list((place / "work" / "outputs" / "wandb").glob("offline-run-*"))
    assert list((place / "tmp").iterdir()) == []
    # what is parsed is kept where the person says
    kept = {"XDG_CACHE_HOME": str(place / "work" / "cache"), "TMPDIR": str(place / "nowhere")}
    again = as_nobody(place, *SMALL, "hydra.run.dir=b", "tracking=none", HOME=closed, **kept)
    assert again.returncode == 0, again.stderr
    assert list((place / "work" / "cache" / "eqprop").glob("mnist5k-*.npz"))
    assert list((place / "home").iterdir()) == []


@pytest.mark.parametrize(
    ("folder", "writable"),
    [
        ("", True),
        ("new/and/newer", True),
        ("file", False),
        ("file/below", False),
        ("relative", False),
    ],
)
def test_asking_whether_a_folder_can_be_written_makes_none(
    folder: str, writable: bool, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    path = folder if folder == "relative" else str(tmp_path / folder)
    assert _is_writable(path) is writable
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_loops_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba's own, the user's, or a temporary one."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))
    assert cache.find_folder() == str(tmp_path / "numba")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache.find_folder() == str(tmp_path / "cache" / "eqprop" / "loops")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache.find_folder().startswith(tempfile.gettempdir())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    assert cache.find_folder() == ""


@pytest.mark.slow  # it compiles twice
@pytest.mark.parametrize("fault", ["damaged", "full"])
def test_a_cache_of_loops_that_is_of_no_use(fault: str, tmp_path: Path) -> None:
    kept = tmp_path / "numba"
    run = (*QUICK, "device.compile=true")
    env = {"NUMBA_CACHE_DIR": str(kept)}
    if fault == "damaged":
        train(*run, "hydra.run.dir=a", cwd=tmp_path, env=env).succeeded()
        for path in kept.rglob("*.nb?"):
            path.write_bytes(path.read_bytes()[:100])
        ran = train(*run, "hydra.run.dir=b", cwd=tmp_path, env=env)
    else:
        script = tmp_path / "full.py"
        script.write_text(
            "import errno, numba.core.caching as caching\n"
            "def full(*_):\n"
            "    raise OSError(errno.ENOSPC, 'No space left on device')\n"
            "caching.IndexDataCacheFile.save = full\n"
            "from eqprop.cli.main import run\n"
            "run()\n"
        )
        ran = train(*run, "hydra.run.dir=b", cwd=tmp_path, env=env, script=script)
    assert (ran.code, "Traceback" in ran.err) == (0, False), ran.err
    assert "cannot keep the compiled loops" in ran.out + ran.err
    shutil.rmtree(kept)
