"""What all tests share: what plain ``pytest`` runs, a seed, the shared data, a repository."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from running import git

os.environ["OMP_NUM_THREADS"] = "1"
"""Two workers share the cores. Runs take as many threads as this says, within these processes too;
tensors are small here, and threads that wait for a core are up to fifteen times as slow."""

if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # under nohup: runs would ignore it as well
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

QUICK = {"core", "config", "data"}
"""The folders that plain ``pytest`` runs; what lies elsewhere is marked ``program``, unless it
compares estimators: ``estimators``."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Plain ``pytest`` does not read what it would leave out: half of the files."""
    plain = config.option.markexpr == config.getini("addopts")[-1]
    of_tests = collection_path.is_dir() and collection_path.parent == Path(__file__).parent
    return True if plain and of_tests and collection_path.name not in QUICK else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.parent.name
        if folder not in QUICK:
            item.add_marker("estimators" if folder == "estimators" else "program")


@pytest.fixture(autouse=True)
def _seed_and_one_thread() -> None:
    import torch  # here, for what starts the workers needs none

    torch.default_generator.manual_seed(0)  # torch.manual_seed asks every backend: 1 ms
    torch.set_num_threads(1)  # a test may have set it


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Full MNIST beside the checkout, for the tests that want it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"full MNIST is not at {folder}")
    return folder


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository of one commit, in which ``code.py`` is old."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "code.py").write_text("old\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder
