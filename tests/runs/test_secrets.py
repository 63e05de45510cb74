"""No key, token or password is in anything that a run writes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from interrupted import before_step, killed, with_code
from running import QUICK, ROOT, git, train

from eqprop.config.compose import check
from eqprop.run.errors import ConfigError
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
        ("--key=0123456789abcdef0123", "--key=***"),
        ("x 0123456789abcdef0123 y", "x *** y"),
        ("dataset: digits, pin=7", "dataset: digits, pin=7"),
    ],
)
def test_redact(text: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123")
    monkeypatch.setenv("DB_PASSWORD", "digits")  # whose variables these are nobody here knows
    monkeypatch.setenv("pin_password", "7")
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


def in_no_file(folder: Path, *secrets: str) -> bool:
    written = [path for path in folder.rglob("*") if path.is_file()]
    return not any(s.encode() in path.read_bytes() for s in secrets for path in written)


def test_no_secret_is_in_any_file(tmp_path: Path) -> None:
    """A key in the environment, a password in the remote's URL: nowhere on the disk."""
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    url = f"https://me:{PASSWORD}@example.org/x.git"
    subprocess.run(["git", "remote", "add", "origin", url], cwd=tmp_path, check=True)
    env = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    wait = "from eqprop.tracking import wandb_session\nwandb_session.INIT_TIMEOUT = 3.0"
    ran = with_code(wait, *QUICK[:3], "tracking=wandb_online", cwd=tmp_path, env=env)
    assert ran.code == 0, ran.out + ran.err
    assert KEY not in ran.out + ran.err
    assert len(list((tmp_path / "outputs").rglob("*"))) > 10
    assert in_no_file(tmp_path / "outputs", KEY, PASSWORD)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ([f"tracking.notes=see {KEY}"], "tracking.notes"),
        ([f"tracking.tags=[x{KEY}]"], "tracking.tags"),
        (["name=${oc.env:WANDB_API_KEY}"], "name"),
        (["tracking.notes=${oc.env:MY_PASSWORD}"], "tracking.notes"),
        (["tracking.notes=${oc.env:ADDRESS}"], "tracking.notes"),
        ([f"paths.data=https://me:{PASSWORD}@example.org/x"], "paths.data"),
        ([f"hydra.run.dir={KEY}"], "hydra.run.dir"),
        ([f"+hydra.job.env_set.WANDB_API_KEY={KEY}"], "hydra.job.env_set.WANDB_API_KEY"),
        (["-m", "seed=1,2", f"name=a,{KEY}"], "name"),
    ],
)
def test_what_must_not_be_recorded_is_refused(
    words: list[str], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For what is recorded is read again, so that nothing in it may be masked."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("MY_PASSWORD", "hunter2")
    monkeypatch.setenv("ADDRESS", f"http://me:{PASSWORD}@example.org")
    monkeypatch.chdir(tmp_path)
    flags, rest = [w for w in words if w == "-m"], [w for w in words if w != "-m"]
    quoted = [re.sub(r"=(see .*|http.*)", r"='\1'", word) for word in rest]
    with pytest.raises(ConfigError, match=re.escape(key)) as caught:
        check([*flags, *QUICK, *quoted])
    assert KEY not in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_variables_change_nothing_that_is_read_again(tmp_path: Path) -> None:
    """Whatever they are called, and whatever of the configuration is their value."""
    words = ("dataset", "digits", "gaussian", "16", "1", "a", "auto", "wandb", "eqprop.data.Digits")
    env = {f"NR_{i}_PASSWORD": word for i, word in enumerate(words)}
    env |= {"SORT_KEY": "validation", "WANDB_API_KEY": "digits", "A_TOKEN": str(tmp_path)}
    run = (*QUICK, "hydra.run.dir=a", "trainer.epochs=2")
    ran = killed(18, *run, cwd=tmp_path, name="TERM", env=env)
    assert ran.code == 143
    assert not [p for p in (tmp_path / "a").rglob("*") if p.is_file() and b"***" in p.read_bytes()]
    train("resume=a", cwd=tmp_path, env=env).succeeded()
    train("resume=a", "trainer.epochs=3", cwd=tmp_path).succeeded()
    evaluate = ROOT / "scripts" / "evaluate.py"
    assert train(str(tmp_path / "a"), cwd=tmp_path, env=env, script=evaluate).code == 0


def test_no_secret_is_in_a_traceback(tmp_path: Path) -> None:
    raising = before_step(3, f"raise RuntimeError('refused with {KEY}')")
    ran = with_code(raising, *QUICK, cwd=tmp_path, env={"WANDB_API_KEY": KEY})
    assert ran.code == 1
    assert "RuntimeError: refused with ***" in ran.error
    assert "refused with ***" in (ran.folder / "traceback.txt").read_text()
    for path in ran.folder.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path
