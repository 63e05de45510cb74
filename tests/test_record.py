"""The run's folder: whole files at every moment, one owner, no secrets."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from eqprop import environment
from eqprop.errors import ConfigError, DataError, RunError
from eqprop.files import one_line, write_atomically
from eqprop.record import RunFolder
from eqprop.redact import redact

PACKAGE = Path(__file__).parents[1]


def status(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def python(code: str, *arguments: object, **options: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        **options,
    )


# atomic writes


def test_write_atomically_replaces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"")
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_one_line() -> None:
    assert one_line("a\n b\tc\x1b[0m") == "a b c?[0m"
    assert len(one_line("x" * 1000)) == 300


# a run's life


def test_a_run_from_claim_to_finish(tmp_path: Path) -> None:
    path = tmp_path / "outputs" / "run"
    folder = RunFolder.claim(path, ["train.py", "seed=1"])
    assert folder.path == path
    assert folder.checkpoints.is_dir()
    assert folder.metrics == path / "metrics.jsonl"
    running = status(path)
    assert running["state"] == "running"
    assert running["pid"] == os.getpid()
    assert running["host"]
    assert running["end"] is running["exit_code"] is running["objective"] is None
    folder.finish("done", objective=0.95)
    done = status(path)
    assert (done["state"], done["exit_code"], done["objective"]) == ("done", 0, 0.95)
    start, end = datetime.fromisoformat(done["start"]), datetime.fromisoformat(done["end"])
    assert start.utcoffset() == timedelta(0)
    assert start <= end


def test_the_first_finish_counts(tmp_path: Path) -> None:
    folder = RunFolder.claim(tmp_path / "run")
    folder.finish("failed", 1, "diverged\nat step 3")
    folder.finish("done", 0)
    assert status(folder.path)["state"] == "failed"
    assert status(folder.path)["reason"] == "diverged at step 3"


def test_an_objective_that_is_not_finite_is_null(tmp_path: Path) -> None:
    folder = RunFolder.claim(tmp_path / "run")
    folder.finish("done", objective=float("nan"))
    assert status(folder.path)["objective"] is None
    assert status(folder.path)["reason"] == "the objective is nan"


@pytest.mark.parametrize(
    ("error", "state", "exit_code"),
    [
        (KeyboardInterrupt(), "interrupted", 130),
        (DataError("x is missing"), "failed", 2),
        (RunError("diverged"), "failed", 1),
        (SystemExit(3), "failed", 3),
        (SystemExit("no"), "failed", 1),
        (ValueError("bug"), "failed", 1),
    ],
)
def test_an_exception_ends_the_record(
    tmp_path: Path, error: BaseException, state: str, exit_code: int
) -> None:
    with pytest.raises(type(error)), RunFolder.claim(tmp_path / "run"):
        raise error
    found = status(tmp_path / "run")
    assert (found["state"], found["exit_code"]) == (state, exit_code)
    assert found["reason"] == (str(error) or type(error).__name__)


@pytest.mark.parametrize("code", [0, None])
def test_leaving_in_the_middle_is_no_end(tmp_path: Path, code: int | None) -> None:
    with pytest.raises(SystemExit), RunFolder.claim(tmp_path / "run"):
        raise SystemExit(code)
    found = status(tmp_path / "run")
    assert (found["state"], found["exit_code"]) == ("failed", 0)
    assert "sys.exit(0)" in found["reason"]


def test_a_block_that_ends_is_done(tmp_path: Path) -> None:
    with RunFolder.claim(tmp_path / "run"):
        pass
    assert status(tmp_path / "run")["state"] == "done"


def test_a_folder_removed_during_the_run_is_one_line(tmp_path: Path) -> None:
    folder = RunFolder.claim(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="cannot record the end of the run"):
        folder.finish("done")


# one owner


def test_a_folder_with_a_record_is_refused(tmp_path: Path) -> None:
    RunFolder.claim(tmp_path / "run").finish("done")
    before = status(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"earlier run.*hydra\.run\.dir") as caught:
        RunFolder.claim(tmp_path / "run")
    assert str(tmp_path / "run") in str(caught.value)
    assert status(tmp_path / "run") == before


def test_a_folder_in_use_names_its_owner(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from eqprop.record import RunFolder
        folder = RunFolder.claim(sys.argv[1])
        print("claimed", flush=True)
        sys.stdin.read()
        """
    with python(code, tmp_path) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "claimed\n"
        with pytest.raises(ConfigError, match=rf"process {owner.pid} on .*hydra\.run\.dir"):
            RunFolder.claim(tmp_path)
        owner.kill()
    assert status(tmp_path)["state"] == "running"
    with pytest.raises(ConfigError, match="earlier run"):
        RunFolder.claim(tmp_path)


def test_of_processes_that_race_one_gets_the_folder(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from eqprop.errors import ConfigError
        from eqprop.record import RunFolder
        print("ready", flush=True)
        sys.stdin.readline()
        try:
            folder = RunFolder.claim(sys.argv[1])
            print("mine", flush=True)
        except ConfigError as error:
            print("refused", flush=True)
        sys.stdin.read()
        """
    racers = [python(code, tmp_path / "run") for _ in range(4)]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    results = sorted(racer.stdout.readline().strip() for racer in racers)
    for racer in racers:
        racer.communicate()
    assert results == ["mine", "refused", "refused", "refused"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write .*file.*paths\.outputs"):
        RunFolder.claim(tmp_path / "file" / "run")


def test_a_full_disk_at_the_first_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ConfigError, match="No space left"):
        RunFolder.claim(tmp_path / "run")


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", fail)
    RunFolder.claim(tmp_path / "run").finish("done")
    with pytest.raises(ConfigError, match="earlier run"):
        RunFolder.claim(tmp_path / "run")


# what the run ran on


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    command = ["git", *who, *arguments]
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "code.py").write_text("old\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


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
        from eqprop.environment import describe
        found = describe(sys.argv)
        assert found["versions"]["torch"] is not None
        assert "torch" not in sys.modules
        """
    process = python(code)
    process.communicate()
    assert process.returncode == 0


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


# secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://user:word@host/a", "https://***@host/a"),
        ("https://ghp_token@host/a.git", "https://***@host/a.git"),
        ("ssh://git@host/a.git", "ssh://git@host/a.git"),
        ("ssh://git:word@host/a.git", "ssh://***@host/a.git"),
        ("git@host:a.git", "git@host:a.git"),
        ("a=postgres://u:p@ss@host/x b", "a=postgres://***@host/x b"),
        ("--key=0123456789abcdef", "--key=***"),
        ("x 0123456789abcdef y", "x *** y"),
        ("7", "***"),
        ("pin=7", "pin=***"),
        ("seed=17", "seed=17"),
        ("nothing", "nothing"),
    ],
)
def test_redact(text: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("pin_password", "7")
    monkeypatch.setenv("NOT_SECRET_AT_ALL", "nothing")
    assert redact(text) == expected


def test_no_secret_is_written(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "s3cret-value-of-a-key"
    monkeypatch.setenv("WANDB_API_KEY", secret)
    git(repository, "remote", "add", "origin", f"https://user:{secret}@example.com/x.git")
    (repository / "code.py").write_text(f"key = '{secret}'\n")
    monkeypatch.chdir(repository)
    folder = RunFolder.claim(tmp_path / "run", ["train.py", f"+key={secret}"])
    folder.finish("failed", 1, f"https://me:{secret}@example.com refused {secret}")
    written = [path.read_text() for path in folder.path.rglob("*") if path.is_file()]
    assert len(written) >= 3
    assert not any(secret in text for text in written)
    assert any("https://***@example.com/x.git" in text for text in written)
