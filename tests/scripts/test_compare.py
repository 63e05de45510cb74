"""scripts/compare.py as a user runs it: what differs between runs, side by side."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from made_runs import make_run
from scripting import SCRIPTS


def compare(*arguments: object, status: int = 0) -> str:
    """What it prints, not on a terminal; where it should fail, its only line of error."""
    command = [sys.executable, str(SCRIPTS / "compare.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    if status == 0:
        assert done.stderr == ""
        return done.stdout
    (line,) = done.stderr.splitlines()
    return line


def table(text: str) -> dict[str, list[str]]:
    """Key → cells: what two blanks or more part, as people and awk read it."""
    lines = [re.split(r" {2,}", line) for line in text.splitlines()]
    return {line[0]: line[1:] for line in lines}


def test_what_differs_side_by_side(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"run-{lr}", lr=lr) for lr in (0.001, 0.01)]
    runs.append(make_run(tmp_path / "lost", "failed", lr=0.001, beta=0.5, reason="diverged"))
    found = table(compare(*runs))
    assert found[""] == ["run-0.001", "run-0.01", "lost"]
    assert found["optimizer.lr"] == ["0.001", "0.01", "0.001"]
    assert found["estimator.beta"] == ["1", "1", "0.5"]
    assert found["state"] == ["done", "done", "failed"]
    assert found["reason"] == ["–", "–", "diverged"]
    assert found["objective"][2] == "–"
    assert "trainer.epochs" not in found
    assert table(compare("--all", *runs))["trainer.epochs"] == ["5", "5", "5"]


def test_a_key_that_is_missing_is_not_null(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    with (b / ".hydra" / "config.yaml").open("a") as file:
        file.write("extra: null\n")
    assert table(compare(a, b))["extra"] == ["–", "null"]


def test_the_same_name_in_two_folders(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name / "0-x", lr=0.1 * i) for i, name in enumerate("abc", 1)]
    assert table(compare(*runs))[""] == ["a/0-x", "b/0-x", "c/0-x"]


def test_nothing_differs(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    assert compare(a, b).startswith("nothing differs")


def test_torn_runs(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    (a / ".hydra" / "config.yaml").write_text("{")
    (a / "status.json").write_text('{"state"')
    (a / "metrics.jsonl").write_bytes(b"\xff")
    found = table(compare(a, b))
    assert found["state"] == ["unknown", "done"]
    assert found["model.activation"] == ["–", "sigmoid"]


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (["a"], "two runs or more"),
        (["a", "nope"], "nope does not exist"),
        (["a", "file"], "file is no folder"),
        (["a", "empty"], "empty holds no run"),
        (["a", "sweep"], "sweep/0-x"),
    ],
)
def test_a_wrong_folder_is_one_line(folders: list[str], words: str, tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "sweep" / "0-x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert words in compare(*(tmp_path / name for name in folders), status=2)


def test_a_reader_that_has_had_enough(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"{i}-{'x' * 200}", lr=0.1 * (i + 1)) for i in range(20)]
    command = [sys.executable, str(SCRIPTS / "compare.py"), "--all", *map(str, runs)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0
    process.stderr.close()


@pytest.mark.parametrize("columns", [40, 100, 300])
def test_on_a_terminal_every_run_is_shown(columns: int, tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"run-{i}", lr=0.001 * (i + 1)) for i in range(7)]
    main, end = pty.openpty()
    command = [sys.executable, str(SCRIPTS / "compare.py"), *map(str, runs)]
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen(command, stdin=end, stdout=end, stderr=end, env=environment)
    os.close(end)
    text = b""
    try:
        while part := os.read(main, 1 << 16):
            text += part
    except OSError:  # its other end is closed
        pass
    os.close(main)
    assert process.wait() == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text.decode()).splitlines()
    assert max(map(len, lines)) <= columns
    for i in range(7):
        assert f"{0.001 * (i + 1):.6g}" in " ".join(lines).split()
        assert any(f"run-{i}" in line for line in lines)
