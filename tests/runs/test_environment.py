"""What a run ran on: versions, code, hardware."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from running import QUICK, git, python, train

from eqprop.run import environment
from eqprop.run.folder import RunFolder


def test_environment(tmp_path: Path) -> None:
    RunFolder.claim(tmp_path / "run", ["train.py", "seed=1"]).finish("done")
    found = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert found["command"] == ["train.py", "seed=1"]
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(found["versions"]) >= {
        "eqprop",
        "torch",
        "numpy",
        "hydra-core",
        "omegaconf",
        "wandb",
    }
    assert found["hardware"]["memory_bytes"] > 0
    assert found["hardware"]["cores_logical"] >= 1
    assert isinstance(found["hardware"]["gpus"], list)
    assert {"platform", "git"} <= set(found)


def test_torch_is_not_imported() -> None:
    code = """if True:
        import sys
        from eqprop.run.environment import describe
        found = describe(sys.argv)
        assert found["versions"]["torch"] is not None
        assert "torch" not in sys.modules
        """
    process = python(code)
    process.communicate()
    assert process.returncode == 0


def test_gpus_are_those_that_torch_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(name="One", total_memory=8)
    cuda = SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 2, get_device_properties=lambda number: gpu
    )
    torch = SimpleNamespace(cuda=cuda, get_num_threads=lambda: 1)
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert environment.hardware()["gpus"] == [{"name": "One", "memory_bytes": 8}] * 2


LATE = """
from eqprop.cli import build, main
from eqprop.run import environment

seen, build_session = [], build.build_session


def torch_is_loaded(*arguments):
    seen.append("a GPU")
    return build_session(*arguments)


build.build_session = torch_is_loaded
environment.hardware = lambda: {"cpu": None, "gpus": list(seen)}
main.run()
"""


def test_gpus_are_recorded_although_torch_is_loaded_late(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(LATE)
    ran = train(*QUICK, cwd=tmp_path, script=tmp_path / "late.py").succeeded()
    found = json.loads((ran.folder / "environment.json").read_text())
    assert (found["hardware"]["gpus"], found["command"][1]) == (["a GPU"], QUICK[0])


def test_git_commit_and_diff(repository: Path) -> None:
    (repository / "code.py").write_text("new\n")
    state = environment.git_state(repository)
    assert state is not None
    assert state["commit"] == git(repository, "rev-parse", "HEAD")
    assert "-old\n+new\n" in state["diff"]
    assert state["diff_truncated"] is False


def test_a_large_diff_is_cut(repository: Path) -> None:
    (repository / "code.py").write_text("x" * 3_000_000)
    state = environment.git_state(repository)
    assert state is not None
    assert len(state["diff"]) == environment.DIFF_LIMIT
    assert state["diff_truncated"] is True


@pytest.mark.parametrize("case", ["no repository", "no commit", "no git", "slow git"])
def test_no_answer_from_git_is_null(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case == "no commit":
        git(tmp_path, "init", "-q")
    elif case == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    elif case == "slow git":
        slow = tmp_path / "git"
        slow.write_text("#!/bin/sh\nexec sleep 30\n")
        slow.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setattr(environment, "GIT_TIMEOUT", 0.2)
    assert environment.git_state(tmp_path) is None
