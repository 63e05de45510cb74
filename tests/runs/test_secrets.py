"""No key, token or password is in anything that a run writes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from interrupted import before_step, with_code
from running import QUICK, git, train

from eqprop.run.folder import RunFolder
from eqprop.run.redact import redact


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


KEY = "5ec2e7" * 6 + "abcd"

PASSWORD = "hunter2-hunter2"
PHRASE = 'it\'s "quoted" and \\folded, ' + "as long as YAML writes no line " * 3 + "tr0ub4dor"


def test_no_secret_is_in_any_file(tmp_path: Path) -> None:
    """A key in the environment and the configuration, a password in a URL: nowhere on the disk."""
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    url = f"https://me:{PASSWORD}@example.org/x.git"
    subprocess.run(["git", "remote", "add", "origin", url], cwd=tmp_path, check=True)
    notes = f"tracking.notes='{KEY} at {url} ${{oc.env:MY_PASSWORD}}'"
    named = [f"tracking.{key}=x{KEY}" for key in ("group", "project", "entity")]
    named.append(f"tracking.tags=[x{KEY}]")
    env = {
        **{"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "http://127.0.0.1:9"},
        "MY_PASSWORD": PHRASE,
    }
    for more, code in (
        ([], 0),
        (["+wrong=" + KEY], 2),
        (["dataset=mnist", f"paths.data={KEY}"], 2),
    ):
        ran = train(
            *(QUICK[:3] if code == 0 else QUICK[1:3]),
            *("tracking=wandb_online", notes, "name='${oc.env:WANDB_API_KEY}'", *named),
            *more,
            cwd=tmp_path,
            env=env,
        )
        assert ran.code == code, ran.out + ran.err
        assert KEY not in ran.out
    written = [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()]
    assert len(written) > 10
    for path in written:
        data = path.read_bytes()
        assert KEY.encode() not in data, path
        assert PASSWORD.encode() not in data, path
        assert b"tr0ub4dor" not in data, path
        assert KEY not in str(path)


@pytest.mark.parametrize("extra", [(), ("hydra.output_subdir=.hydra",)])
def test_no_secret_is_there_if_a_run_is_killed_before_it_begins(
    extra: tuple[str, ...], tmp_path: Path
) -> None:
    """Hydra has handed over, and nothing of ours has replaced what it wrote."""
    dying = (
        "import os, signal\n"
        "from eqprop.run.folder import RunFolder\n"
        "RunFolder.claim = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    secret = f"tracking.notes={KEY}"
    ran = with_code(dying, *QUICK, secret, *extra, cwd=tmp_path, env={"WANDB_API_KEY": KEY})
    assert ran.code == -9
    written = [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()]
    assert [path for path in written if KEY.encode() in path.read_bytes()] == []


def test_no_secret_is_in_a_traceback(tmp_path: Path) -> None:
    raising = before_step(3, f"raise RuntimeError('refused with {KEY}')")
    ran = with_code(raising, *QUICK, cwd=tmp_path, env={"WANDB_API_KEY": KEY})
    assert ran.code == 1
    assert "RuntimeError: refused with ***" in ran.error
    assert "refused with ***" in (ran.folder / "traceback.txt").read_text()
    for path in ran.folder.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path
